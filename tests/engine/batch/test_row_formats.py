"""Parquet and JSONL through the whole engine: the scorer's run, the journal, the final file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from inferay.engine.batch.driver import PoolFactory
from inferay.engine.batch.journal import valid_records
from inferay.engine.batch.result import Interrupted, Result
from inferay.engine.batch.spec import JobSpec
from inferay.engine.batch.store import LocalStore

Make = Callable[..., JobSpec]
Run = Callable[..., Result]
Inline = Callable[..., PoolFactory]


def dicts(paths: list[str], _: Path) -> list[dict[str, Any]]:
    """Give each file a row; every third has no score, and the last ones have one of decimals."""
    numbers = [int(os.path.basename(path)[:4]) for path in paths]
    return [
        {"name": f"n{number}", "score": None if number % 3 == 0 else number / 2 if number > 20
         else number} for number in numbers
    ]


def file(spec: JobSpec, name: str | None = None) -> bytes:
    return (Path(spec.output) / (name or spec.settings.output_file_name)).read_bytes()


def rows(spec: JobSpec, name: str | None = None) -> list[dict[str, Any]]:
    path = Path(spec.output) / (name or spec.settings.output_file_name)
    if ".parquet" in path.name:
        found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return found
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_the_bytes_are_the_same_for_any_workers_and_mini_batch_size(
    make_spec: Make, run_job: Run, inline: Inline, name: str
) -> None:
    found = set()
    for workers, size in ((1, 1), (2, 4), (4, 7), (3, 100)):
        spec = make_spec(files=40, name=f"{workers}-{size}", workers=workers,
                         mini_batch_size=size, output_file_name=name)
        assert run_job(spec, inline(dicts)).status == "Completed"
        found.add(file(spec))
    assert len(found) == 1
    assert rows(spec)[22] == {"row": 0, "name": "n22", "score": 11.0, "file": "0022.txt"}
    assert [row["file"] for row in rows(spec)] == [f"{n:04d}.txt" for n in range(40)]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_the_bytes_are_the_same_after_a_resume(
    make_spec: Make, run_job: Run, inline: Inline, name: str
) -> None:
    whole = make_spec(files=40, name="whole", mini_batch_size=3, output_file_name=name)
    run_job(whole, inline(dicts))
    spec = make_spec(files=40, name="resumed", mini_batch_size=3, output_file_name=name)
    calls: Iterator[int] = iter(range(1000))
    with pytest.raises(Interrupted):
        run_job(spec, inline(dicts), is_stopped=lambda: next(calls) > 2)
    assert run_job(spec, inline(dicts)).epoch == 2
    assert file(spec) == file(whole)


def test_real_workers_write_parquet(make_spec: Make, run_job: Run) -> None:
    script = """
        import os
        import pandas as pd

        def init():
            pass

        def run(mini_batch):
            names = [os.path.basename(path) for path in mini_batch]
            return pd.DataFrame({"name": names, "size": [len(name) for name in names]})
    """
    spec = make_spec(script, files=10, output_file_name="rows.parquet")
    assert run_job(spec).status == "Completed"
    assert rows(spec)[9] == {"row": 0, "name": "0009.txt", "size": 8, "file": "0009.txt"}
    assert pq.read_metadata(Path(spec.output) / "rows.parquet").row_group(0).column(1).statistics


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_a_failed_job_keeps_its_rows_in_the_format(
    make_spec: Make, run_job: Run, inline: Inline, name: str
) -> None:
    def fail(paths: list[str], folder: Path) -> list[Any]:
        if paths[0].endswith("0009.txt"):
            raise ValueError("poison")
        return [{"n": 1}] * len(paths)

    spec = make_spec(files=12, workers=1, output_file_name=name, error_threshold=0)
    result = run_job(spec, inline(fail))
    assert (result.status, result.error and result.error["code"]) == (
        "Failed", "ErrorThresholdExceeded"
    )
    kept = rows(spec, f"{name}.partial")
    assert [row["file"] for row in kept][:9] == [f"{n:04d}.txt" for n in range(9)]
    assert sorted(os.listdir(spec.output)) == [f"{name}.partial"]


def test_types_that_do_not_fit_end_the_job_at_once_and_the_rows_are_kept(
    make_spec: Make, run_job: Run, inline: Inline
) -> None:
    def score(paths: list[str], folder: Path) -> list[Any]:
        number = int(os.path.basename(paths[0])[:4])
        return [{"score": "n/a" if number == 30 else number}] * len(paths)

    spec = make_spec(files=900, workers=1, output_file_name="rows.parquet")
    result = run_job(spec, inline(score))
    assert (result.status, result.error and result.error["code"]) == (
        "Failed", "ColumnTypesDiffer"
    )
    assert (result.error or {})["message"].startswith(
        "mini-batches 0 to 9 and mini-batch 10: column 'score' is int64 in some rows and string in"
    )
    assert result.counts.items_ok < 900
    kept = rows(spec, "rows.parquet.partial")
    assert [row["score"] for row in kept][29:32] == ["27", "n/a", "n/a"]
    assert run_job(spec, inline(score)).error == result.error   # nothing to be had by a resume


def test_a_mini_batch_with_too_few_rows_has_a_committed_range_of_its_own(
    make_spec: Make, run_job: Run, inline: Inline
) -> None:
    def score(paths: list[str], folder: Path) -> list[Any]:
        return [1] * (len(paths) - paths[0].endswith("0006.txt"))

    spec = make_spec(files=15, workers=1, output_file_name="rows.parquet")
    assert run_job(spec, inline(score)).counts.items_failed == 1
    ranges = [record["r"] for record in valid_records(LocalStore(Path(spec.work)))
              if record["k"] == "commit"]
    assert [2, 3] in ranges
    assert [row["file"] for row in rows(spec)][5:9] == ["0005.txt", None, None, "0009.txt"]


def test_names_that_are_no_utf8_can_be_told_apart(
    make_spec: Make, run_job: Run, inline: Inline, tmp_path: Path
) -> None:
    folder = tmp_path / "names"
    folder.mkdir()
    for raw in (b"a\xff", b"a\xfe", "ä".encode()):
        (folder / os.fsdecode(raw)).write_bytes(b"x")

    def score(paths: list[str], _: Path) -> list[str]:
        return [os.path.basename(path) for path in paths]

    for name, expected in (
        ("rows.parquet", ["a\\xfe", "a\\xff", "ä"]), ("rows.jsonl", ["a\udcfe", "a\udcff", "ä"]),
    ):
        spec = make_spec(input=folder, name=name, output_file_name=name)
        run_job(spec, inline(score))
        assert [(row["file"], row["prediction"]) for row in rows(spec)] == [
            (one, one) for one in expected
        ]
