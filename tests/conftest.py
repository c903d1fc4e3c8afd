"""What tests of any folder may use, and which process of `make test` runs what.

A service is started once in each process that asks for it, when it is first asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests import azurite as emulators
from tests import radosgw as gateways
from tests.azurite import Azurite, Container
from tests.http_site import Site, http_site
from tests.radosgw import Bucket, Server
from tests.services import skip_without


class Scheduling(LoadFileScheduling):   # type: ignore[misc]  # untyped
    """Hands out whole files, whose tests share fixtures, and all files with Ray as if one.

    So two of Ray's clusters never run beside each other.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "ray" if "pytest.mark.ray" in (self.config.rootpath / file).read_text() else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Tell xdist how to share out the tests."""
    return Scheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In several processes, begin with what takes longest: Ray in one, the S3 server in another."""
    if not hasattr(config, "workerinput"):
        return
    on_s3 = {item.path for item in items if "radosgw" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: (not item.get_closest_marker("ray"), item.path not in on_s3))


@pytest.fixture(scope="session")
def radosgw() -> Iterator[Server]:
    """A real S3 server."""
    skip_without(gateways.missing_program())
    with gateways.started() as server:
        yield server


@pytest.fixture
def bucket(radosgw: Server) -> Bucket:
    """A new, empty bucket on a real S3 server."""
    return radosgw.make_bucket()


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """Azure's blob storage, emulated."""
    skip_without(None if emulators.program() else "azurite")
    with emulators.started() as server:
        yield server


@pytest.fixture
def container(azurite: Azurite) -> Container:
    """A new, empty container of Azure's blob storage."""
    return azurite.make_container()


@pytest.fixture
def site() -> Iterator[Site]:
    """An http server whose answers the test chooses."""
    with http_site() as found:
        yield found


@pytest.fixture
def clean_modules(tmp_path: Path) -> Iterator[None]:
    """Undo what loading a script does to this process."""
    path, names = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - names:
        module = sys.modules[name]
        if str(tmp_path) in str(getattr(module, "__file__", "")) or name.startswith("azureml"):
            del sys.modules[name]
