"""A job on Ray's own autoscaler, whose nodes are processes of this machine: 0, then 3, then 0."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.batch.spec import JobSettings, JobSpec, WorkerSpec
from tests.ray_clusters import Cluster, autoscaling_cluster, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NODES = 3

#: Item 0 says that work has begun, the others wait until all nodes are there, the last one until
#: a node is gone again. A row tells which GPU Ray gave to the worker.
SCRIPT = """
    import os, time

    def wait_for(name):
        while not os.path.exists(os.path.join(os.environ["GATES"], name)):
            time.sleep(0.02)

    def init():
        pass

    def run(mini_batch):
        name = os.path.basename(mini_batch[0])
        if name == "0000.txt":
            open(os.path.join(os.environ["GATES"], "begun"), "w").close()
        else:
            wait_for("grown")
        if name == "0011.txt":
            wait_for("shrunk")
        return [f"{name} gpu={os.environ.get('CUDA_VISIBLE_DEVICES')}"]
"""


def make_spec(folder: Path, script: str, **settings: Any) -> JobSpec:
    """Return a job of 12 items, each a mini-batch."""
    data, code = folder / "data", folder / "code"
    data.mkdir()
    code.mkdir()
    for number in range(12):
        (data / f"{number:04d}.txt").write_text(str(number))
    (code / "score.py").write_text(textwrap.dedent(script))
    return JobSpec(
        name="job", input=str(data), input_type="uri_folder", output=str(folder / "output"),
        work=str(folder / "work"), logs=str(folder / "logs"), code=str(code),
        scoring_script="score.py",
        settings=JobSettings(mini_batch_size=1, max_retries=0, timeout_s=120.0, **settings),
    )


@dataclass
class Job:
    """A job of its own process."""

    spec: JobSpec
    process: subprocess.Popen[bytes]

    def progress(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(
                (Path(self.spec.work) / "progress.json").read_bytes()
            )
        except FileNotFoundError:
            return {}
        return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with autoscaling_cluster({"CPU": 1, "GPU": 1}, nodes_max=NODES) as found:
        yield found


@pytest.fixture
def start(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[[JobSpec], Job]]:
    jobs = []

    def start(spec: JobSpec) -> Job:
        path = tmp_path / f"{spec.name}.json"
        path.write_bytes(spec.to_bytes())
        jobs.append(Job(spec, subprocess.Popen(
            [sys.executable, "-m", "inferay.jobs", "run", str(path)],
            env=os.environ | cluster.environment,
        )))
        return jobs[-1]

    yield start
    for job in jobs:
        job.end()


def test_a_job_whose_workers_fit_on_no_node_says_what_it_waits_for(
    cluster: Cluster, start: Callable[[JobSpec], Job], tmp_path: Path
) -> None:
    workers = WorkerSpec(2, num_cpus=0.5, custom={"fast_disk": 1.0})
    job = start(replace(make_spec(tmp_path, SCRIPT), workers=workers))
    wait_until(60, "the reason", lambda: job.progress().get("waiting_for") is not None)
    said = job.progress()["waiting_for"]
    assert "2 fast_disk, 0 available" in said
    assert "no node that is up could ever hold a worker (0.5 CPUs and 1 fast_disk)" in said
    assert job.progress()["workers_by_state"]["waiting"] == 2


def test_nodes_come_for_a_job_and_go_as_its_tail_drains(
    cluster: Cluster, start: Callable[[JobSpec], Job], tmp_path: Path
) -> None:
    """Two workers on each node share its GPU."""
    gates = tmp_path / "gates"
    gates.mkdir()
    spec = make_spec(tmp_path, SCRIPT, environment_variables={"GATES": str(gates)})
    workers = WorkerSpec(2 * NODES, num_cpus=0.5, num_gpus=0.5)
    wait_until(60, "no node", lambda: cluster.nodes() == 0)
    began_s = time.monotonic()
    job = start(replace(spec, workers=workers))
    begun_s = wait_until(90, "the first item", (gates / "begun").exists)
    grown_s = wait_until(90, "all nodes", lambda: cluster.nodes() == NODES)
    (gates / "grown").touch()
    shrunk_s = wait_until(90, "a node less", lambda: cluster.nodes() < NODES)
    (gates / "shrunk").touch()
    assert job.process.wait(60) == 0
    ended_s = time.monotonic()
    empty_s = wait_until(60, "no node left", lambda: cluster.nodes() == 0)
    rows = (Path(spec.output) / "predictions.csv").read_text().splitlines()
    assert rows == [f"{number:04d}.txt gpu=0" for number in range(12)]
    print(
        f"first item {begun_s - began_s:.1f} s, {NODES} nodes {grown_s - began_s:.1f} s, first "
        f"node gone {shrunk_s - grown_s:.1f} s after the tail began, job ended "
        f"{ended_s - began_s:.1f} s, no node left {empty_s - ended_s:.1f} s later"
    )
