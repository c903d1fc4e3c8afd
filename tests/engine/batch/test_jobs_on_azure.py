"""Whole jobs whose input, work and output are Azure's blobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from inferay.engine.batch.driver import Driver
from inferay.engine.batch.journal import SupersededError, claim, valid_records
from inferay.engine.batch.pool import LocalPool
from inferay.engine.batch.result import Result
from inferay.engine.batch.spec import JobSpec
from inferay.engine.batch.store import open_store
from tests.azurite import Azurite, Container
from tests.fault_proxy import fault_proxy

MakeSpec = Callable[..., JobSpec]
RunJob = Callable[..., Result]

#: A row per file, and a file of the user's own per mini-batch.
ROWS_AND_FILES = """
    import os
    import time

    def init():
        global OUT
        OUT = os.environ["AZUREML_BI_OUTPUT_PATH"]

    def run(mini_batch):
        time.sleep(0.05)   # so that a driver has time to look whether it is to stop
        names = [os.path.basename(path) for path in mini_batch]
        with open(os.path.join(OUT, names[0] + ".out"), "w") as file:
            file.write(",".join(names))
        return [f"{name}={open(path).read()}" for name, path in zip(names, mini_batch)]
"""


def without_what_differs(files: dict[str, bytes]) -> dict[str, bytes]:
    said = json.loads(files["_SUCCESS.json"])
    for what in ("run", "hashes"):
        said.pop(what, None)
    return files | {"_SUCCESS.json": json.dumps(said).encode()}


@pytest.fixture
def far(make_spec: MakeSpec, container: Container) -> JobSpec:
    """A job over 30 blobs, with its work beside its output."""
    near = make_spec(ROWS_AND_FILES, files=30, name="far")
    container.put({
        f"in/{path.name}": path.read_bytes() for path in Path(near.input).iterdir()
    })
    output = f"{container.uri}/out"
    return replace(
        near, input=f"{container.uri}/in", output=output, work=f"{output}/.inferay/far/work"
    )


def test_a_job_under_faults_gives_on_azure_what_it_gives_on_disk(
    make_spec: MakeSpec, run_job: RunJob, far: JobSpec, container: Container, azurite: Azurite
) -> None:
    near = make_spec(ROWS_AND_FILES, files=30, name="near")
    assert run_job(near).status == "Completed"
    with fault_proxy(azurite.port, rate=0.2, seed=1) as proxy:
        result = run_job(far, access=container.through(proxy.endpoint_url).access)
        assert sum(proxy.faults.values()) >= 20
    assert (result.status, result.counts.items_ok) == ("Completed", 30)
    found = container.blobs("out/")
    published = {
        name.removeprefix("out/"): data for name, data in found.items() if "/.inferay/" not in name
    }
    local = {str(path.relative_to(near.output)): path.read_bytes()
             for path in Path(near.output).rglob("*") if path.is_file()}
    assert without_what_differs(published) == without_what_differs(local)
    assert container.place.account_key.encode() not in b"".join(found.values())


def test_an_older_driver_stops_once_a_newer_one_has_the_journal(
    far: JobSpec, container: Container
) -> None:
    store = open_store(far.work, container.access)

    def is_stopped() -> bool:
        """Let a newer driver claim the job, once this one has committed something."""
        records = list(valid_records(store))
        if any(r["k"] == "commit" for r in records) and not store.names("journal.2"):
            claim(store, {})[1].close()
        return False

    with pytest.raises(SupersededError, match="stops"):
        Driver(far, LocalPool, None, is_stopped, container.access).run()
    result = Driver(far, LocalPool, None, lambda: False, container.access).run()
    assert (result.status, result.counts.items_ok) == ("Completed", 30)
