"""The works that are measured, their inputs and the job that every contender is given."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Self

SCRIPTS = Path(__file__).parent / "scripts"

#: Where a whole job says what only it knows.
FACTS = "facts.json"

#: Files in one folder of an input.
FOLDER_FILES = 10_000

#: Rows that are drawn once; a longer table repeats them.
TABLE_ROWS = 500_000
COLUMNS = 8


@dataclass(frozen=True)
class Job:
    """What every contender is given, as a file of JSON.

    Attributes:
        script: Name of the scoring script in `scripts/`.
        kind: `files`, `csv` or `parquet`.
        input: The folder, or the one file of a table.
        items: Files or rows; so many rows of output are expected.
        output: A folder, which the contender makes.
        mini_batch_size: Files that one call of `run()` gets.
        model_dir: Where `init()` finds its model, or "".
        endpoint: Host and port of the S3 server where the input is there, or "".
    """

    script: str
    kind: str
    input: str
    items: int
    output: str = ""
    mini_batch_size: int = 10
    model_dir: str = ""
    endpoint: str = ""

    def save(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        return cls(**json.loads(Path(path).read_text()))


@dataclass(frozen=True)
class Work:
    """One line of the issue's table.

    Attributes:
        name: w1 to w7.
        what: For the reader.
        make: Given a folder and how many items, makes the input and returns the job.
        items: Of the comparison with plain processes.
        items_whole: Of the whole job beside peers: so many that ours takes 30 s.
        aim: Engine / plain processes, at most.
        peers: Name of each peer, and how many times its time ours has to fit in.
    """

    name: str
    what: str
    make: Callable[[Path, int], Job]
    items: int
    items_whole: int
    aim: float
    peers: dict[str, float]


def make_files(folder: Path, count: int, *, script: str, text: Callable[[int], str]) -> Job:
    """Write the files with both cores: there may be a million."""
    starts = range(0, count, FOLDER_FILES)
    with ProcessPoolExecutor(2) as pool:
        for start in starts:
            stop = min(count, start + FOLDER_FILES)
            texts = [text(number) for number in range(start, stop)]
            pool.submit(_write_files, folder / f"{start // FOLDER_FILES:05d}", start, texts)
    return Job(script, "files", str(folder), count)


def _write_files(folder: Path, start: int, texts: list[str]) -> None:
    folder.mkdir(parents=True)
    for number, text in enumerate(texts, start):
        handle = os.open(f"{folder}/file{number:07d}.txt", os.O_WRONLY | os.O_CREAT)
        os.write(handle, text.encode())
        os.close(handle)


def slow_one_in_100(number: int) -> str:
    """Return the milliseconds of an item of w6: 1 % of the items, drawn by seed, are slow."""
    return "200" if random.Random(number).random() < 0.01 else "2"


def make_table(folder: Path, count: int, *, kind: str) -> Job:
    """Write one CSV or Parquet file of eight columns, and the model that scores it."""
    import joblib
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet
    from sklearn.linear_model import LogisticRegression

    folder.mkdir(parents=True)
    path = folder / f"table.{kind}"
    drawn = min(count, TABLE_ROWS)
    values = np.random.default_rng(7).random((drawn, COLUMNS), dtype=np.float32).round(4)
    table = pa.table({f"x{column}": values[:, column] for column in range(COLUMNS)})
    if kind == "csv":
        with open(path, "wb") as file:
            for start in range(0, count, drawn):
                options = pa.csv.WriteOptions(include_header=start == 0)
                pa.csv.write_csv(table.slice(0, count - start), file, options)
    else:
        with pa.parquet.ParquetWriter(path, table.schema) as writer:
            for start in range(0, count, drawn):
                writer.write_table(table.slice(0, count - start), row_group_size=125_000)
    model = folder / "model"
    model.mkdir()
    sample = values[:2_000].astype(np.float64)
    fitted = LogisticRegression().fit(sample, sample.sum(axis=1) > COLUMNS / 2)
    fitted.classes_ = fitted.classes_.astype(np.int64)   # rows of 0 and 1
    joblib.dump(fitted, model / "model.joblib")
    return Job("linear", kind, str(path), count, model_dir=str(model))


_TINY = partial(make_files, script="tiny", text=lambda number: f"{number}\n")
_BUSY = partial(make_files, script="busy", text=lambda number: "5")
_UNEVEN = partial(make_files, script="busy", text=slow_one_in_100)

WORKS = {
    work.name: work
    for work in (
        Work(
            "w1", "tiny files, read in run(), 10 to a mini-batch", _TINY, 20_000, 700_000, 1.15,
            {"ray_data": 3, "dask": 3, "daft": 3, "pool": 1},
        ),
        Work(
            "w2", "files of about 5 ms CPU, 10 to a mini-batch", _BUSY, 2_000, 12_000, 1.05,
            {"ray_data": 1, "dask": 1, "daft": 1, "joblib": 1},
        ),
        Work(
            "w3", "one CSV of 8 columns, scikit-learn model",
            partial(make_table, kind="csv"), 5_000_000, 40_000_000, 1.10,
            {"ray_data": 2, "dask": 1, "daft": 1},
        ),
        Work(
            "w4", "the same as Parquet",
            partial(make_table, kind="parquet"), 5_000_000, 60_000_000, 1.15,
            {"ray_data": 3, "dask": 3, "daft": 3},
        ),
        Work(
            "w6", "files of 2 ms CPU, of which 1 % take 200 ms, drawn by seed", _UNEVEN,
            3_000, 0, 1.20, {},
        ),
    )
}
