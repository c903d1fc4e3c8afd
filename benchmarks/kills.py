"""What kills cost: a whole job, beside the same with a worker process killed every two seconds."""

from __future__ import annotations

import contextlib
import random
import threading
from pathlib import Path

import psutil

from benchmarks import clusters, whole
from benchmarks.report import Plain
from benchmarks.works import Job, make_files

EVERY_S = 2.0
FILES = 8_000

#: How a worker process is known: its command line.
WORKER = "inferay.engine.batch.child"


def chaos(folder: Path, repetitions: int, scale: float) -> Plain:
    """Measure jobs with and without kills in turn."""
    count = int(FILES * scale)
    job = make_files(folder / "input", count, script="busy", text=lambda number: "5")
    killed_s, quiet_s, starts_s = [], [], []
    deaths = 0
    with clusters.ray_cluster(folder):
        for number in range(repetitions):
            quiet_s.append(whole.measure("ours", job, folder / "job").facts["seconds"])
            run = _with_kills(job, folder, random.Random(number))
            killed_s.append(run.facts["seconds"])
            starts_s.append(run.wall_s - run.facts["seconds"])
            deaths += int(run.facts["deaths"])
    what = (
        f"{count:,} files of 5 ms, a worker killed every {EVERY_S:g} s ({deaths} in all); beside "
        "the same engine undisturbed"
    )
    return Plain("chaos", what, 1.25, killed_s, quiet_s, starts_s)


def _with_kills(job: Job, folder: Path, draw: random.Random) -> whole.Run:
    has_ended = threading.Event()
    runs: list[whole.Run] = []

    def measure() -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(has_ended.set)
            runs.append(whole.measure("ours", job, folder / "job"))

    thread = threading.Thread(target=measure)
    thread.start()
    while not has_ended.wait(EVERY_S):
        workers = _workers()
        if workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                draw.choice(workers).kill()
    thread.join()
    return runs[0]


def _workers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if WORKER in process.cmdline():
                found.append(process)
    return found
