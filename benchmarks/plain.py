"""Two plain processes with a static split: what one writes without any framework.

`python -m benchmarks.plain JOB PART` loads the script, says `ready`, waits for a line, scores its
half of the input, writes its rows, fsyncs, and says how long `run()` took. `measure` runs both and
joins their files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from benchmarks.works import Job

PARTS = 2

#: Bytes of CSV that one call of `run()` gets; of Parquet it gets a row group.
CSV_BYTES = 8 << 20


def measure(job: Job, folder: Path) -> tuple[float, float]:
    """Return the wall time without the starts, and the time in `run()` of both together."""
    path = replace(job, output=str(folder)).save(folder / "job.json")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.plain", str(path), str(part)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for part in range(PARTS)
    ]
    for process in processes:
        _pipe(process.stdout).readline()
    began_s = time.monotonic()
    for process in processes:
        _pipe(process.stdin).write("go\n")
        _pipe(process.stdin).flush()
    run_s = sum(float(_pipe(process.stdout).readline()) for process in processes)
    with open(folder / "part0", "ab") as whole, open(folder / "part1", "rb") as rest:
        shutil.copyfileobj(rest, whole, 4 << 20)
        whole.flush()
        os.fsync(whole.fileno())
    wall_s = time.monotonic() - began_s
    for process in processes:
        process.communicate()
    return wall_s, run_s


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def load_script(job: Job) -> ModuleType:
    """Import the job's scoring script and run its `init()`."""
    import importlib

    os.environ["AZUREML_MODEL_DIR"] = job.model_dir
    script = importlib.import_module(f"benchmarks.scripts.{job.script}")
    script.init()
    return script


def main() -> None:
    job, part = Job.load(sys.argv[1]), int(sys.argv[2])
    script = load_script(job)
    batches = {"files": _files, "csv": _csv, "parquet": _parquet}[job.kind](job, part)
    print("ready", flush=True)
    sys.stdin.readline()
    run_s = 0.0
    with open(f"{job.output}/part{part}", "w") as out:
        for batch in batches:
            began_s = time.monotonic()
            rows = script.run(batch)
            run_s += time.monotonic() - began_s
            lines = rows if isinstance(rows, list) else map(str, rows.tolist())
            out.write("\n".join(lines) + "\n")
        out.flush()
        os.fsync(out.fileno())
    print(run_s, flush=True)


def _files(job: Job, part: int) -> Iterator[list[str]]:
    paths = list_paths(job.input)
    half = len(paths) // PARTS
    mine = paths[:half] if part == 0 else paths[half:]
    return (
        mine[start : start + job.mini_batch_size]
        for start in range(0, len(mine), job.mini_batch_size)
    )


def list_paths(folder: str) -> list[str]:
    """Return all files below the folder, sorted."""
    return sorted(
        f"{parent}/{name}" for parent, _, names in os.walk(folder) for name in names
    )


def _csv(job: Job, part: int) -> Iterator[Any]:
    """Read the half from one newline to another with Arrow, on one thread."""
    import pyarrow.csv as pacsv

    size_bytes = os.path.getsize(job.input)
    with open(job.input, "rb") as file:
        names = [name.strip('"') for name in file.readline().decode().strip().split(",")]
        first = file.tell()
        file.seek(size_bytes // PARTS)
        file.readline()
        middle = file.tell()
    options = pacsv.ReadOptions(column_names=names, use_threads=False)
    at, stop = (first, middle) if part == 0 else (middle, size_bytes)
    return _csv_slices(job.input, at, stop, options)


def _csv_slices(path: str, at: int, stop: int, options: Any) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.csv as pacsv

    with open(path, "rb") as file:
        file.seek(at)
        while at < stop:
            data = file.read(min(CSV_BYTES, stop - at))
            if at + len(data) < stop:
                data += file.readline()
            at += len(data)
            yield pacsv.read_csv(pa.BufferReader(data), read_options=options)


def _parquet(job: Job, part: int) -> Iterator[Any]:
    import pyarrow.parquet as papq

    file = papq.ParquetFile(job.input)
    half = file.num_row_groups // PARTS
    groups = range(half) if part == 0 else range(half, file.num_row_groups)
    for group in groups:
        yield file.read_row_group(group, use_threads=False)


if __name__ == "__main__":
    main()
