"""Batch, measured beside what one would use without inferay: `make bench`.

Each ratio is of things measured alternately in one run on one machine. Nothing is asserted here;
the tables go to `RESULTS.md`, whatever they say.

    w1 … w7   the engine beside two plain processes, and whole jobs beside peers
    w8        an MLflow model without code beside pandas, and `mlflow models predict`
    w5        1M mini-batches that do nothing: the driver's CPU for each
    memory    the driver's memory with 10M files
    workers   1,000 workers, simulated: the driver's load
    chaos     a worker killed every 2 s
    invoke    a small job on a warm cluster beside a bare Ray job

    make bench WORKS="w1 w5" REPETITIONS=5 SCALE=0.1 PARTS=plain
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import clusters, plain, whole
from benchmarks.report import Line, Peer, Plain, add
from benchmarks.works import WORKS, Job, Work

OTHERS = ("w5", "w7", "w8", "memory", "workers", "chaos", "invoke")

#: Of the items, in the small job that shows the start.
SMALL = 0.01


def main() -> None:
    names = [*WORKS, *OTHERS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("works", nargs="*", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--parts", default="plain,peers", help="plain, peers or both")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="times the items of each work")
    parser.add_argument("--dry", action="store_true", help="leave RESULTS.md as it is")
    options = parser.parse_args()
    for name in options.works:
        if name not in names:
            parser.error(f"no work {name}; choose from {', '.join(names)}")
    works = options.works or names
    if len(works) == 1:
        began_s = time.monotonic()
        lines = list(measure(works[0], options))
        for line in lines:
            print(line.row(), flush=True)
        if not options.dry:
            add(lines, time.monotonic() - began_s)
        return
    rest = [argument for argument in sys.argv[1:] if argument not in works]
    began_s = time.monotonic()
    failed = [
        name for name in works   # each in a process of its own: Ray remembers its first token
        if subprocess.run(
            [sys.executable, "-m", "benchmarks.batch", name, *rest], check=False
        ).returncode
    ]
    print(f"{(time.monotonic() - began_s) / 60:.0f} minutes")
    if failed:
        sys.exit(f'failed; measure again with WORKS="{" ".join(failed)}"')


def measure(name: str, options: argparse.Namespace) -> Iterator[Line]:
    """Measure one work."""
    with scratch() as folder:
        if name in WORKS:
            work = WORKS[name]
            if "plain" in options.parts:
                yield beside_plain(work, folder, options)
            if "peers" in options.parts and work.peers:
                yield from beside_peers(work, folder, options)
        elif name == "w7":
            from benchmarks.objects import w7

            yield from w7(folder, options.repetitions, options.scale)
        elif name == "w8":
            from benchmarks.no_code import w8

            yield from w8(folder, options.repetitions, options.scale)
        elif name == "chaos":
            from benchmarks.kills import chaos

            yield chaos(folder, options.repetitions, options.scale)
        elif name == "invoke":
            from benchmarks.invoke import invoke

            yield invoke(folder, options.repetitions)
        else:
            from benchmarks import driver

            figure = {"w5": driver.w5, "memory": driver.memory, "workers": driver.workers}[name]
            yield figure(folder, options.scale)


def beside_plain(work: Work, folder: Path, options: argparse.Namespace) -> Plain:
    """Measure the engine and two plain processes in turn."""
    job = work.make(folder / "input", int(work.items * options.scale))
    ours_s, theirs_s, starts_s = [], [], []
    with clusters.ray_cluster(folder):
        for _ in range(options.repetitions):
            theirs_s.append(_floor(work, job, folder))
            run = whole.measure("engine", job, folder / "job")
            ours_s.append(run.facts["seconds"])
            starts_s.append(run.wall_s - run.facts["seconds"])
    shutil.rmtree(folder / "input")
    what = f"{job.items:,} {work.what}"
    return Plain(work.name, what, work.aim, ours_s, theirs_s, starts_s)


def _floor(work: Work, job: Job, folder: Path) -> float:
    """Return the wall time of plain processes; for w6, of work that is divided ideally."""
    part = folder / "plain"
    part.mkdir()
    wall_s, run_s = plain.measure(job, part)
    shutil.rmtree(part)
    return run_s / plain.PARTS if work.name == "w6" else wall_s


def beside_peers(work: Work, folder: Path, options: argparse.Namespace) -> Iterator[Peer]:
    """Measure whole jobs in turn: ours, then each peer's, then again."""
    count = int(work.items_whole * options.scale)
    job = work.make(folder / "input", count)
    small = work.make(folder / "small", max(100, int(count * SMALL)))
    names = ["ours", *work.peers]
    with ExitStack() as stack:
        stack.enter_context(clusters.ray_cluster(folder))
        if "dask" in work.peers:
            stack.enter_context(clusters.dask_cluster(folder))
        small_s = {name: whole.measure(name, small, folder / "job").wall_s for name in names}
        walls_s: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(options.repetitions):
            for name in names:
                walls_s[name].append(whole.measure(name, job, folder / "job").wall_s)
                print(f"{work.name} {name} {walls_s[name][-1]:.1f} s", file=sys.stderr, flush=True)
    for peer, aim in work.peers.items():
        yield Peer(
            work.name, peer, job.items, aim, walls_s["ours"], walls_s[peer], small.items,
            small_s["ours"], small_s[peer],
        )


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="inferay-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
