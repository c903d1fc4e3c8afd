"""Whole jobs whose work and output are on a real S3 server, with kills and faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.batch.driver import Driver
from inferay.engine.batch.journal import SupersededError, claim, valid_records
from inferay.engine.batch.messages import Lease
from inferay.engine.batch.pool import LocalPool
from inferay.engine.batch.result import Result
from inferay.engine.batch.spec import JobSpec
from inferay.engine.batch.store import open_store
from inferay.engine.storage import Access
from inferay.errors import Conflict
from tests.fault_proxy import fault_proxy
from tests.radosgw import Bucket, Server

pytestmark = pytest.mark.timeout(180)

MakeSpec = Callable[..., JobSpec]
RunJob = Callable[..., Result]
Tree = Callable[[str | Path], dict[str, str]]

#: A row per file and a file per mini-batch, a little slowly.
ROWS_AND_FILES = """
    import os
    import time

    def init():
        global OUT
        OUT = os.environ["AZUREML_BI_OUTPUT_PATH"]

    def run(mini_batch):
        time.sleep(0.06)
        names = [os.path.basename(path) for path in mini_batch]
        with open(os.path.join(OUT, names[0] + ".out"), "w") as file:
            file.write(",".join(names))
        return [f"{name}={open(path).read()}" for name, path in zip(names, mini_batch)]
"""


@pytest.fixture
def on_s3(make_spec: MakeSpec, bucket: Bucket) -> Callable[..., JobSpec]:
    """Make a spec with its work and output in the bucket."""

    def make(*arguments: Any, name: str = "far", **settings: Any) -> JobSpec:
        spec = make_spec(*arguments, name=name, **settings)
        output = f"{bucket.uri}/{name}"
        return replace(spec, output=output, work=f"{output}/.inferay/{name}/work")

    return make


def published(bucket: Bucket, name: str = "far") -> dict[str, bytes]:
    """Return the job's output, without its work and without what differs between runs."""
    found = {key.removeprefix(f"{name}/"): data for key, data in bucket.objects(name).items()}
    output = {key: data for key, data in found.items() if not key.startswith(".inferay/")}
    if "_SUCCESS.json" in output:
        said = json.loads(output["_SUCCESS.json"])
        del said["run"]
        output["_SUCCESS.json"] = json.dumps(said).encode()
    return output


def on_disk(spec: JobSpec) -> dict[str, bytes]:
    """Return a local job's output as `published` returns one on S3."""
    root = Path(spec.output)
    output = {str(path.relative_to(root)): path.read_bytes()
              for path in root.rglob("*") if path.is_file()}
    said = json.loads(output["_SUCCESS.json"])
    del said["run"]
    output["_SUCCESS.json"] = json.dumps(said).encode()
    return output


class KillingPool(LocalPool):
    """A pool that kills a worker at every fifth lease that is handed out."""

    leases = kills = 0

    def lease(self, slot: int, lease: Lease) -> None:
        super().lease(slot, lease)
        KillingPool.leases += 1
        if KillingPool.leases % 5 == 0:
            KillingPool.kills += 1
            pid = self._workers[slot].pid
            assert pid is not None   # a worker that takes leases has a process
            os.kill(pid, signal.SIGKILL)


def test_the_output_on_s3_is_the_one_on_disk(
    make_spec: MakeSpec, on_s3: MakeSpec, run_job: RunJob, bucket: Bucket
) -> None:
    near = make_spec(ROWS_AND_FILES, files=40, name="near")
    assert run_job(near).status == "Completed"
    far = on_s3(ROWS_AND_FILES, files=40)
    result = run_job(far, access=bucket.access)
    assert (result.status, result.counts.items_ok) == ("Completed", 40)
    assert published(bucket) == on_disk(near)
    assert bucket.uploads() == []
    left = bucket.objects("far/.inferay")
    assert not any("/segments/" in key or "/files/" in key for key in left)


def test_an_output_that_exists_is_refused_before_any_work(
    on_s3: MakeSpec, run_job: RunJob, bucket: Bucket
) -> None:
    spec = on_s3()
    open_store(spec.output, bucket.access).create("predictions.csv", b"precious")
    with pytest.raises(Conflict, match=r"predictions\.csv"):
        run_job(spec, access=bucket.access)
    assert bucket.objects() == {"far/predictions.csv": b"precious"}


#: A driver in a process of its own: `DRIVER SPEC ACCESS`.
DRIVER = """
import json, sys
from pathlib import Path
from inferay.engine.batch.driver import Driver
from inferay.engine.batch.pool import LocalPool
from inferay.engine.storage import Access
from inferay.jobs.folder import read_frozen

access = Access.from_dict(json.loads(Path(sys.argv[2]).read_text()))
Driver(read_frozen(Path(sys.argv[1])), LocalPool, None, lambda: False, access).run()
"""


def test_killed_workers_and_drivers_leave_the_same_output(
    make_spec: MakeSpec, on_s3: MakeSpec, run_job: RunJob, bucket: Bucket, tmp_path: Path,
    wait_for: Callable[..., None],
) -> None:
    near = make_spec(ROWS_AND_FILES, files=120, name="near", output_action="summary_only")
    assert run_job(near).status == "Completed"
    far = on_s3(ROWS_AND_FILES, files=120, output_action="summary_only")
    spec, access, temp = (tmp_path / name for name in ("spec.json", "access.json", "elsewhere"))
    spec.write_bytes(far.to_bytes())
    access.write_text(json.dumps(bucket.access.to_dict()))
    temp.mkdir()
    store = open_store(far.work, bucket.access)
    for _ in range(2):
        before = committed(store)
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(spec), str(access)],
            env={**os.environ, "TMPDIR": str(temp)},
        )
        wait_for(lambda before=before: committed(store) > before, 60)
        driver.kill()
        driver.wait()
    done = committed(store)
    assert 0 < done < 120
    assert run_job(far, KillingPool, access=bucket.access).counts.items_ok == 120
    assert published(bucket) == on_disk(near)
    assert KillingPool.kills >= 1


def committed(store: Any) -> int:
    return sum(record["ok"] for record in valid_records(store) if record["k"] == "commit")


def test_an_older_driver_can_neither_commit_nor_publish(
    on_s3: MakeSpec, bucket: Bucket
) -> None:
    spec = on_s3(ROWS_AND_FILES, files=60, workers=1)
    store = open_store(spec.work, bucket.access)
    taken = threading.Event()

    def is_stopped() -> bool:
        """Let a newer driver claim the job, once this one has committed something."""
        if not taken.is_set() and committed(store):
            taken.set()
            claim(store, {})[1].close()
        return False

    with pytest.raises(SupersededError, match="epoch 1 stops"):
        Driver(spec, LocalPool, None, is_stopped, bucket.access).run()
    assert taken.is_set()
    assert published(bucket) == {}
    before = list(valid_records(store))
    result = Driver(spec, LocalPool, None, lambda: False, bucket.access).run()
    assert (result.status, result.counts.items_ok) == ("Completed", 60)
    assert [r for r in valid_records(store) if r["k"] == "commit"][:len(before)] == before
    assert published(bucket)["predictions.csv"].count(b"\n") == 60


@pytest.mark.parametrize("seed", [1])
def test_with_faults_the_output_is_exact_and_requests_are_few_more(
    on_s3: MakeSpec, run_job: RunJob, bucket: Bucket, radosgw: Server, seed: int
) -> None:
    outputs, requests = [], []
    for name, rate in (("calm", 0.0), ("rough", 0.3)):
        with fault_proxy(radosgw.port, rate=rate, seed=seed) as proxy:
            spec = on_s3(ROWS_AND_FILES, files=30, name=name)
            result = run_job(spec, access=bucket.through(proxy.endpoint_url).access)
            assert result.status == "Completed"
            outputs.append(published(bucket, name))
            requests.append(sum(proxy.requests.values()))
            assert sum(proxy.faults.values()) >= rate * 0.2 * requests[-1]
    assert outputs[0] == outputs[1]
    assert requests[1] <= 2.2 * requests[0]
    assert bucket.uploads() == []


def test_storage_that_stays_away_fails_the_job_by_name_and_it_resumes(
    on_s3: MakeSpec, run_job: RunJob, bucket: Bucket, radosgw: Server
) -> None:
    """Only what workers write is refused, so that the driver lives to say so."""
    spec = on_s3(ROWS_AND_FILES, files=30)

    def refuse_segments(number: int, method: str, path: str) -> str | None:
        return "failed" if method == "PUT" and "/segments/" in path else None

    with fault_proxy(radosgw.port, choose=refuse_segments) as proxy:
        result = run_job(spec, access=bucket.through(proxy.endpoint_url).access)
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "StorageUnavailable"
    assert "resume the job" in result.error["message"]
    assert result.counts.items_failed == 0
    assert "predictions.csv" not in published(bucket)
    assert run_job(spec, access=bucket.access).status == "Completed"
    assert published(bucket)["predictions.csv"].count(b"\n") == 30


def test_a_file_that_is_left_open_is_refused_by_name(
    on_s3: MakeSpec, run_job: RunJob, bucket: Bucket
) -> None:
    spec = on_s3("""
        import os

        def init():
            global FILES
            FILES = []

        def run(mini_batch):
            name = os.path.basename(mini_batch[0])
            if name == "0003.txt":
                FILES.append(open(os.path.join(os.environ["AZUREML_BI_OUTPUT_PATH"], "all"), "a"))
                FILES[0].write(name)
            return mini_batch
    """, files=9)
    assert run_job(spec, access=bucket.access).status == "Completed"
    (line, *_) = published(bucket)["errors.jsonl"].splitlines()
    error = json.loads(line)
    assert error["kind"] == "SharedFile"
    assert "left 'all' open" in error["exception"]
    assert "all" not in published(bucket)


def test_credentials_never_reach_spec_journal_or_logs(
    on_s3: MakeSpec, run_job: RunJob, bucket: Bucket
) -> None:
    spec = on_s3(files=3)
    secret = "never-shown-secret"
    place = replace(bucket.access.places[0], secret_access_key=secret)
    with pytest.raises(Exception, match=r"SignatureDoesNotMatch|Forbidden|AccessDenied") as caught:
        run_job(spec, access=Access((place,)))
    assert secret not in str(caught.value)
    assert run_job(spec, access=bucket.access).status == "Completed"
    for key, data in bucket.objects().items():
        assert bucket.access.places[0].secret_access_key.encode() not in data, key
    for path in Path(spec.logs).rglob("*"):
        if path.is_file():
            assert bucket.access.places[0].secret_access_key.encode() not in path.read_bytes()
