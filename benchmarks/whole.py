"""Whole jobs, each a process of its own from its start to its end, and what they cost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.works import FACTS, Job

#: A job that takes longer is ended, and its time is a lower bound.
LIMIT_S = 600.0

#: The engine: as it is, and with all of its workers up before the first lease.
OURS: dict[str, list[str]] = {"ours": [], "engine": ["--together"]}

#: What Ray Data and Daft write as the first line of each CSV file.
HEADERS = (b"row", b"label")


@dataclass(frozen=True)
class Run:
    """One whole job.

    Attributes:
        wall_s: From the start of its process to its end.
        facts: What the engine says besides: seconds from the first lease on.
    """

    wall_s: float
    facts: dict[str, float]


def measure(name: str, job: Job, folder: Path) -> Run:
    """Run one of `OURS` or a peer and check that it wrote a row for each item.

    Its output is removed.

    Raises:
        RuntimeError: It failed, or rows are missing.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    output = folder / "output"
    output.mkdir()
    path = replace(job, output=str(output)).save(folder / "job.json")
    command = (
        ["benchmarks.ours", str(path), *OURS[name]] if name in OURS
        else ["benchmarks.peers", name, str(path)]
    )
    os.sync()   # what an earlier job left to write back is none of this one's
    began_s = time.monotonic()
    with open(folder / "log", "w") as log:
        ended = subprocess.run(
            [sys.executable, "-m", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            timeout=LIMIT_S, check=False,
        )
    wall_s = time.monotonic() - began_s
    if ended.returncode != 0:
        raise RuntimeError(f"{name} failed:\n{(folder / 'log').read_text()[-4000:]}")
    rows = count_rows(output / "rows" if name in OURS else output)
    if rows != job.items:
        raise RuntimeError(f"{name} wrote {rows} rows for {job.items} items")
    facts = json.loads((output / FACTS).read_text()) if name in OURS else {}
    shutil.rmtree(folder)
    return Run(wall_s, facts)


def count_rows(folder: Path) -> int:
    """Return the lines of all files below the folder, without headers and `_SUCCESS.json`."""
    rows = 0
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".json":
            last = b"\n"
            with open(path, "rb") as file:
                rows -= file.readline().strip(b'"\n') in HEADERS
                file.seek(0)
                while chunk := file.read(8 << 20):
                    rows += chunk.count(b"\n")
                    last = chunk[-1:]
            rows += last != b"\n"   # Dask ends no text file with a newline
    return rows
