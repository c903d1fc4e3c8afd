"""The same job in other frameworks, each at its documented best on two cores.

`python -m benchmarks.peers NAME JOB` runs one whole job; the cluster that it joins (Ray's, or a
Dask scheduler with its two workers) runs already: see `clusters`. What was tuned stands beside it.
None of them retries, times out, isolates or commits a mini-batch of its own as the engine does.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.plain import list_paths, load_script
from benchmarks.works import Job

WORKERS = 2


def batches_of(paths: list[str], size: int) -> Iterator[list[str]]:
    iterator = iter(paths)
    while batch := list(islice(iterator, size)):
        yield batch


class Scorer:
    """The script, loaded once per process, on as many files or rows as a framework hands over."""

    def __init__(self, job: Job) -> None:
        self._script = load_script(job)
        self._size = job.mini_batch_size

    def rows(self, paths: Any) -> list[str]:
        """Score files, `mini_batch_size` to a call of `run()`."""
        return [
            row for batch in batches_of(list(paths), self._size) for row in self._script.run(batch)
        ]

    def labels(self, frame: Any) -> Any:
        """Score a table."""
        return self._script.run(frame)


_SCORERS: dict[str, Scorer] = {}


def scorer(job: Job) -> Scorer:
    """Return this process's scorer: frameworks that run tasks load the model once so."""
    if job.script not in _SCORERS:
        _SCORERS[job.script] = Scorer(job)
    return _SCORERS[job.script]


# -- Ray Data


def ray_data(job: Job) -> None:
    """Run on the running Ray.

    Tuned: stateless tasks, so that reading, scoring and writing fuse into one task per block and
    no block goes through the object store, as the input of an actor pool does. Blocks: a few per
    core, large enough that a task's cost vanishes. Paths are read in run(), as the engine does.
    Order is not asked for, and progress bars and statistics are off.
    """
    import logging

    import ray
    import ray.data

    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_auto_log_stats = False
    if job.endpoint:
        _ray_data_objects(job)
        return
    if job.kind == "files":
        import pyarrow as pa

        paths = pa.table({"path": list_paths(job.input)})
        blocks = max(2 * WORKERS, min(64, job.items // 2_000))
        step = -(-len(paths) // blocks)
        slices = [paths.slice(at, step) for at in range(0, len(paths), step)]

        def score_files(batch: Any) -> Any:
            return {"row": scorer(job).rows(batch["path"])}

        ray.data.from_arrow(slices).map_batches(score_files, batch_size=None).write_csv(job.output)
        return

    def score_table(frame: Any) -> Any:
        return {"label": scorer(job).labels(frame)}

    read = {"csv": ray.data.read_csv, "parquet": ray.data.read_parquet}[job.kind]
    read(job.input).map_batches(
        score_table, batch_format="pyarrow", batch_size=None
    ).write_csv(job.output)


def _ray_data_objects(job: Job) -> None:
    """Fetch objects over Arrow's S3 client in two actors that score them.

    Tuned: an actor fetches the 200 files of its batch with 16 threads, then scores them. Ray
    Data's own reader, `read_binary_files`, fetches the files of a task one by one: it took 174 s
    with a task per core, and 93 s with eight tasks beside the actors, where this takes 47.
    """
    import tempfile
    from concurrent.futures import ThreadPoolExecutor

    import pyarrow as pa
    import pyarrow.fs
    import ray.data

    def connect() -> Any:
        return pyarrow.fs.S3FileSystem(endpoint_override=job.endpoint, scheme="http")

    root = pyarrow.fs.FileSelector(job.input.removeprefix("s3://"), recursive=True)
    paths = sorted(info.path for info in connect().get_file_info(root) if info.is_file)

    class Model:
        def __init__(self) -> None:
            self.scorer = Scorer(job)
            self.system = connect()
            self.threads = ThreadPoolExecutor(16)

        def fetch(self, path: str, folder: str) -> str:
            here = f"{folder}/{os.path.basename(path)}"
            with self.system.open_input_stream(path) as stream:
                Path(here).write_bytes(stream.read())
            return here

        def __call__(self, batch: Any) -> Any:
            with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
                fetched = self.threads.map(lambda path: self.fetch(path, folder), batch["path"])
                return {"row": self.scorer.rows(list(fetched))}

    step = 200
    slices = [pa.table({"path": paths[at : at + step]}) for at in range(0, len(paths), step)]
    ray.data.from_arrow(slices).map_batches(
        Model, batch_size=step, num_cpus=0.5, concurrency=WORKERS
    ).write_csv(job.output)


# -- Dask


def dask(job: Job) -> None:
    """Run on the running scheduler with its two workers of one thread.

    Tuned: partitions of thousands of files, or 64 MB of CSV, or a whole row group's multiple, so
    that the scheduler's cost per task (about 1 ms) vanishes; text files written by the workers.
    """
    from distributed import Client

    with Client(os.environ["DASK_ADDRESS"]):
        if job.kind == "files":
            import dask.bag

            size = max(10, min(5_000, job.items // (8 * WORKERS)))
            bag = dask.bag.from_sequence(list_paths(job.input), partition_size=size)
            bag.map_partitions(lambda paths: scorer(job).rows(paths)).to_textfiles(
                f"{job.output}/*.txt"
            )
            return
        import dask.dataframe
        import pandas as pd

        frame = (
            dask.dataframe.read_csv(job.input, blocksize="64MB") if job.kind == "csv"
            else dask.dataframe.read_parquet(job.input, split_row_groups=8)
        )
        frame.map_partitions(
            lambda part: pd.DataFrame({"label": scorer(job).labels(part)}),
            meta={"label": "int64"},
        ).to_csv(f"{job.output}/*.csv", header=False, index=False)


# -- Daft


def daft(job: Job) -> None:
    """Run on Daft's native runner, in this process and two processes of its own for the UDF.

    Tuned: a batch UDF in two processes (`use_process`, `max_concurrency`): in threads the GIL
    lets one run at a time; batches of thousands of rows, so that the hand-over vanishes.
    """
    framework: Any = importlib.import_module("daft")
    data_type = framework.DataType
    framework.set_runner_native()
    os.environ["DAFT_PROGRESS_BAR"] = "0"

    @framework.cls(max_concurrency=WORKERS, use_process=True)
    class Model:
        def __init__(self) -> None:
            self.scorer = Scorer(job)

        @framework.method.batch(   # type: ignore[untyped-decorator]
            return_dtype=data_type.string(), batch_size=2_000
        )
        def files(self, paths: Any) -> Any:
            return self.scorer.rows(paths.to_pylist())

        @framework.method.batch(   # type: ignore[untyped-decorator]
            return_dtype=data_type.int64(), batch_size=125_000
        )
        def table(self, *columns: Any) -> Any:
            import pyarrow as pa

            return self.scorer.labels(
                pa.table({f"x{i}": column.to_arrow() for i, column in enumerate(columns)})
            )

    model: Any = Model()
    if job.kind == "files":
        frame = framework.from_pydict({"path": list_paths(job.input)}).into_batches(2_000)
        frame.select(model.files(framework.col("path")).alias("row")).write_csv(job.output)
        return
    frame = {"csv": framework.read_csv, "parquet": framework.read_parquet}[job.kind](job.input)
    columns = [framework.col(name) for name in frame.column_names]
    frame.select(model.table(*columns).alias("label")).write_csv(job.output)


# -- on one machine


_job: Job


def _begin(job: Job) -> None:
    global _job
    _job = job
    scorer(job)


def _score(batch: list[str]) -> list[str]:
    return scorer(_job).rows(batch)


def pool(job: Job) -> None:
    """Run in a `multiprocessing.Pool` of two.

    Tuned: `imap_unordered`, and 1,000 files to a task, in which the script gets its mini-batches;
    the parent writes the rows.
    """
    import multiprocessing

    size = max(10, min(1_000, job.items // (8 * WORKERS)))
    with multiprocessing.Pool(WORKERS, _begin, (job,)) as workers:
        batches = batches_of(list_paths(job.input), size)
        _write_lines(job, workers.imap_unordered(_score, batches))


def joblib(job: Job) -> None:
    """Run in joblib's loky processes.

    Tuned: results as a generator, unordered, and tasks of at least 100 files, in which the script
    gets its mini-batches.
    """
    from joblib import Parallel, delayed

    size = max(10, min(100, job.items // (8 * WORKERS)))
    batches = batches_of(list_paths(job.input), size)
    parallel = Parallel(n_jobs=WORKERS, return_as="generator_unordered")
    _write_lines(job, parallel(delayed(_joblib_task)(job, batch) for batch in batches))


def _joblib_task(job: Job, batch: list[str]) -> list[str]:
    return scorer(job).rows(batch)


def _write_lines(job: Job, results: Any) -> None:
    with open(f"{job.output}/rows.txt", "w") as out:
        for rows in results:
            out.write("\n".join(rows) + "\n")


PEERS: dict[str, Callable[[Job], None]] = {
    peer.__name__: peer for peer in (ray_data, dask, daft, pool, joblib)
}


def main() -> None:
    # A peer's workers import this module by its name.
    from benchmarks.peers import PEERS

    job = Job.load(sys.argv[2])
    Path(job.output).mkdir(exist_ok=True)
    PEERS[sys.argv[1]](job)


if __name__ == "__main__":
    main()
