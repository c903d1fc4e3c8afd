"""What tests of any folder may use. A service is started once, when it is first asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import radosgw as gateways
from tests.http_site import Site, http_site
from tests.radosgw import Bucket, Server
from tests.services import skip_without


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
