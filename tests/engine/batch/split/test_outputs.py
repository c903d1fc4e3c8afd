"""What rows of tables become in Parquet and JSONL, and in a redrive, in worker processes."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pyarrow.parquet as pq
import pytest

from inferay.engine.batch.result import Result
from inferay.engine.batch.spec import JobSpec, Redrive

SCORE = """
    import pandas

    def init():
        pass

    def run(batch: pandas.DataFrame):
        if batch["id"].isin(POISON).any():
            raise ValueError("poison")
        frame = pandas.DataFrame({"id": batch["id"], "double": batch["value"] * 2})
        return frame
"""


def script(poison: list[int]) -> str:
    return textwrap.dedent(SCORE).replace("POISON", str(poison))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of a CSV, a Parquet file and a few small CSVs: 600 rows."""
    folder = tmp_path / "tables"
    folder.mkdir()
    frame = pandas.DataFrame({"id": range(600), "value": [n * 0.5 for n in range(600)]})
    frame[:300].to_csv(folder / "a.csv", index=False)
    frame[300:500].to_parquet(folder / "b.parquet", row_group_size=60, index=False)
    for number in range(5):
        part = frame[500 + number * 20 : 520 + number * 20]
        part.to_csv(folder / f"c{number}.csv", index=False)
    return folder


def test_each_row_says_which_row_of_which_file_it_is_of_whatever_the_mini_batches(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], folder: Path
) -> None:
    found = set()
    for number, size in enumerate(("17 rows", "1000 rows")):
        spec = make_spec(
            script([]), input=folder, name=f"j{number}", workers=1, split="rows",
            table="pandas", mini_batch_size=size, output_file_name="rows.parquet",
        )
        assert run_job(spec).status == "Completed"
        found.add((Path(spec.output) / "rows.parquet").read_bytes())
    assert len(found) == 1
    rows = pq.read_table(Path(spec.output) / "rows.parquet").to_pylist()
    files = {"a.csv": 0, "b.parquet": 300} | {f"c{n}.csv": 500 + 20 * n for n in range(5)}
    assert [row["id"] for row in rows] == list(range(600))
    for row in rows:
        assert row["row"] + files[row["file"]] == row["id"]
        assert row["double"] == row["id"]


def test_failed_rows_are_redriven_and_merged_in_their_places(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], folder: Path
) -> None:
    name = "rows.parquet"
    settings: dict[str, Any] = {
        "split": "rows", "table": "pandas", "mini_batch_size": "25 rows", "output_file_name": name,
        "workers": 1,
    }
    old = make_spec(script([7, 8, 310, 599]), input=folder, name="old", **settings)
    assert run_job(old).counts.items_failed == 4
    code = Path(old.code) / "score.py"
    code.write_text(script([599]))
    first = redrive(old, "first")
    assert run_job(first).status == "Completed"
    errors = [json.loads(line) for line in
              (Path(first.output) / "errors.jsonl").read_bytes().splitlines()]
    assert [(error["item"], error["rows"]) for error in errors] == [("c4.csv", [19, 20])]
    code.write_text(script([]))
    second = redrive(first, "second")
    undisturbed = make_spec(script([]), input=folder, name="whole", **settings)
    for spec in (second, undisturbed):
        assert run_job(spec).status == "Completed"
    assert (Path(second.output) / name).read_bytes() \
        == (Path(undisturbed.output) / name).read_bytes()


def redrive(old: JobSpec, name: str) -> JobSpec:
    base = Path(old.output).parent.parent / name
    return replace(
        old, name=name, output=str(base / "output"), work=str(base / "work"),
        logs=str(base / "logs"), hashes={},
        redrive=Redrive(old.name, old.work, old.output, old.settings.output_file_name, True),
    )
