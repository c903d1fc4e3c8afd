"""Batch, measured beside what one would write without inferay: `make bench`.

Each figure is a ratio of two things measured alternately in one run on one machine. Nothing is
asserted here; the table goes to `RESULTS.md`, whatever it says.

    w1      20,000 tiny files, from the first lease to the final output, beside two plain
            processes that split them statically; the starts of both are excluded
    invoke  a job of 10 files, from `invoke` to Completed, beside a bare Ray job that starts two
            actors and ends, both on the same running cluster
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"

SCORE = '''
import os

def init():
    pass

def run(mini_batch):
    rows = []
    for path in mini_batch:
        with open(path) as file:
            rows.append(f"{os.path.basename(path)} {len(file.read())}")
    return rows
'''

#: The same `run()`, in a loop: waits for a line, scores its half, writes its rows.
PLAIN = '''
import os, sys
sys.path.insert(0, sys.argv[1])
import score
score.init()
folder, size, part = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
names = sorted(os.listdir(folder))
half = len(names) // 2
names = names[:half] if part == 0 else names[half:]
print("ready", flush=True)
sys.stdin.readline()
with open(sys.argv[5], "w") as out:
    for start in range(0, len(names), size):
        for row in score.run([f"{folder}/{name}" for name in names[start:start + size]]):
            out.write(row + "\\n")
print("done", flush=True)
'''

BARE_JOB = '''
import ray

@ray.remote(num_cpus=0.03)
class Actor:
    def ready(self):
        return True

ray.init(log_to_driver=False)
ray.get([actor.ready.remote() for actor in [Actor.remote(), Actor.remote()]])
'''


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        name: Of the work.
        ours_s: Our times.
        theirs_s: The others' times, measured in between.
        aim: The ratio to reach.
        note: What was measured beside what.
    """

    name: str
    ours_s: list[float]
    theirs_s: list[float]
    aim: str
    note: str

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours_s) / statistics.median(self.theirs_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*", default=["w1", "invoke"])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--write", action="store_true", help=f"add the table to {RESULTS.name}")
    options = parser.parse_args()
    works: dict[str, Callable[[argparse.Namespace], Line]] = {"w1": w1, "invoke": invoke}
    table = render([works[name](options) for name in options.works])
    print(table)
    if options.write:
        with open(RESULTS, "a") as file:
            file.write("\n" + table)


def w1(options: argparse.Namespace) -> Line:
    """Tiny files: the engine on Ray beside two plain processes."""
    import ray

    from inferay.engine.batch import JobSpec, run
    from inferay.engine.batch.spec import JobSettings, WorkerSpec

    with _scratch() as folder:
        code, data = _code(folder), _files(folder / "data", options.files)
        ray.init(
            num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False,
            object_store_memory=128 << 20,
        )
        ours, theirs = [], []
        for number in range(options.repeat):
            spec = JobSpec(
                name=f"w1-{number}", input=str(data), input_type="uri_folder",
                output=str(folder / f"out{number}"), work=str(folder / f"work{number}"),
                logs=str(folder / "logs"), code=str(code), scoring_script="score.py",
                settings=JobSettings(mini_batch_size=10), workers=WorkerSpec(count=2),
            )
            result = run(spec)
            assert result.counts.rows == options.files, result
            ours.append(result.seconds)
            theirs.append(_plain(folder, code, data))
        ray.shutdown()
    note = f"{options.files:,} tiny files, 2 workers, mini_batch_size 10"
    return Line("w1", ours, theirs, "1.25", note)


def invoke(options: argparse.Namespace) -> Line:
    """A small job on a warm cluster beside a bare Ray job."""
    from inferay import launcher
    from inferay.client import Client
    from inferay.client.http import Address
    from inferay.config import Workspace
    from inferay.engine.resources import (
        BatchDeployment,
        BatchEndpoint,
        BatchSettings,
        CodeConfiguration,
        Resources,
    )
    from inferay.jobs.ray_jobs import RayAddress, RayJobs

    with _scratch() as folder:
        code, data = _code(folder), _files(folder / "data", 10)
        bare = folder / "bare.py"
        bare.write_text(BARE_JOB)
        workspace = Workspace(folder / "home")
        try:
            head = launcher.up(workspace).head
            assert head is not None
            ray_jobs = RayJobs(RayAddress(head.gcs, head.dashboard, Path(head.token_path)))
            address = Address.of_workspace(workspace)
            client = Client(address.url, address.token, address.ca)
            client.batch_endpoints.create_or_update(BatchEndpoint(name="bench"))
            client.batch_deployments.create_or_update(
                BatchDeployment(
                    name="d", endpoint_name="bench",
                    code_configuration=CodeConfiguration(code=str(code), scoring_script="score.py"),
                    resources=Resources(instance_count=2),
                    settings=BatchSettings(mini_batch_size=1),
                ),
                set_default=True,
            )
            uri = f"file://{data}"
            client.batch_endpoints.invoke("bench", input=uri).wait()   # the cluster is warm then
            ours, theirs = [], []
            for _ in range(options.repeat):
                began_s = time.monotonic()
                client.batch_endpoints.invoke("bench", input=uri).wait()
                ours.append(time.monotonic() - began_s)
                theirs.append(_bare_job(ray_jobs, bare))
        finally:
            launcher.down(workspace)
    note = "10 files, 2 workers, invoke to Completed; bare Ray job with 2 actors, submit to end"
    return Line("invoke", ours, theirs, "1.5", note)


def _bare_job(ray_jobs: object, script: Path) -> float:
    from inferay.jobs.ray_jobs import RayJobs

    assert isinstance(ray_jobs, RayJobs)
    key = uuid.uuid4().hex
    began_s = time.monotonic()
    ray_jobs.submit(key, shlex.join([sys.executable, str(script)]), {})
    while ray_jobs.driver(key) != "gone":
        time.sleep(0.1)
    return time.monotonic() - began_s


def _plain(folder: Path, code: Path, data: Path) -> float:
    script = folder / "plain.py"
    script.write_text(PLAIN)
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(code), str(data), "10", str(part),
             str(folder / f"plain{part}.txt")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for part in (0, 1)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    began_s = time.monotonic()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    elapsed_s = time.monotonic() - began_s
    for process in processes:
        process.communicate()
    return elapsed_s


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="inferay-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _code(folder: Path) -> Path:
    code = folder / "code"
    code.mkdir()
    (code / "score.py").write_text(SCORE)
    return code


def _files(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"file{number:07d}.txt").write_text(f"{number}\n")
    return folder


def render(lines: list[Line]) -> str:
    machine = f"{os.cpu_count()} CPUs, {psutil.virtual_memory().total / 2**30:.0f} GiB, "
    machine += f"{platform.system()}, Python {platform.python_version()}"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True,
        check=False,
    ).stdout.strip()
    rows = "".join(
        f"| {line.name} | {line.ratio:.2f} | {line.aim} | {statistics.median(line.ours_s):.2f} "
        f"({min(line.ours_s):.2f} to {max(line.ours_s):.2f}) | "
        f"{statistics.median(line.theirs_s):.2f} "
        f"({min(line.theirs_s):.2f} to {max(line.theirs_s):.2f}) | {len(line.ours_s)} | "
        f"{line.note} |\n"
        for line in lines
    )
    return (
        f"## Batch, {datetime.now(UTC):%Y-%m-%d}, {machine}, commit {commit}\n\n"
        "| work | ratio | aim: at most | ours, s: median (range) | beside, s: median (range) "
        "| repetitions | what |\n|---|---|---|---|---|---|---|\n" + rows
    )


if __name__ == "__main__":
    main()
