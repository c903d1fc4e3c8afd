"""Whole jobs over tables, in worker processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from inferay.engine.batch.result import Result
from inferay.engine.batch.spec import JobSpec

ROWWISE = """
    import pandas as pd

    def init():
        pass

    def run(batch: pd.DataFrame):
        if (batch["name"] == "poison").any():
            raise ValueError("poison")
        return [f"{row.id}|{row.name}|{row.value}" for row in batch.itertuples(index=False)]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of a large CSV, many small ones, JSON Lines and Parquet."""
    folder = tmp_path / "tables"
    folder.mkdir()
    frame = pandas.DataFrame({
        "id": range(3000),
        "name": [f'größe "{n % 7}"\nzeile, {n}' if n % 3 else "plain" for n in range(3000)],
        "value": [None if n % 100 == 7 else n * 0.1 for n in range(3000)],
    })
    frame.loc[[1234, 2999], "name"] = "poison"
    (folder / "big.csv").write_bytes(
        b"\xef\xbb\xbf" + frame.to_csv(index=False, lineterminator="\r\n").encode()
    )
    for number in range(20):
        frame[number * 10 : number * 10 + 10].to_csv(folder / f"small{number:02}.csv", index=False)
    (folder / "rows.jsonl").write_text(frame[:500].to_json(orient="records", lines=True))
    frame[:1200].to_parquet(folder / "rows.parquet", row_group_size=500, index=False)
    (folder / "_SUCCESS").write_text("")
    (folder / "empty.csv").write_text("id,name,value\n")
    return folder


def table_settings(**settings: Any) -> dict[str, Any]:
    return {"split": "rows", "table": "pandas", **settings}


def test_the_output_is_the_same_for_any_size_and_number_of_workers_with_poison_rows_named(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], folder: Path,
    tree_of: Callable[..., dict[str, str]],
) -> None:
    trees, errors = [], []
    for size, workers in (("250 rows", 1), ("9KB", 2), (7, 4), ("100000 rows", 2)):
        spec = make_spec(
            ROWWISE, input=folder, name=f"j{size}-{workers}".replace(" ", ""), workers=workers,
            **table_settings(mini_batch_size=size),
        )
        result = run_job(spec)
        assert (result.status, result.counts.items_ok) == ("Completed", 4898)
        output = Path(spec.output)
        trees.append(tree_of(output)["predictions.csv"])
        lines = (output / "errors.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        errors.append([(one["item"], one["rows"], one["kind"]) for one in found])
        success = json.loads((output / "_SUCCESS.json").read_text())
        assert success["counts"]["items"] == 4900
    assert len(set(trees)) == 1
    assert errors == [[
        ("big.csv", [1234, 1235], "Exception"), ("big.csv", [2999, 3000], "Exception"),
    ]] * 4


def test_every_row_is_scored_once_and_in_order(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], folder: Path,
) -> None:
    spec = make_spec("""
        import pandas

        def init():
            pass

        def run(batch: pandas.DataFrame):
            return batch["id"].tolist()
    """, input=folder, **table_settings(mini_batch_size="10KB"))
    assert run_job(spec).counts.rows == 4900
    rows = (Path(spec.output) / "predictions.csv").read_text().split()
    expected = [*range(3000), *range(500), *range(1200), *range(200)]
    assert rows == [str(n) for n in expected]


def test_arrow_tables_are_given_where_they_are_declared(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], folder: Path,
) -> None:
    spec = make_spec("""
        import pyarrow as pa

        def init():
            pass

        def run(batch: pa.Table):
            assert isinstance(batch, pa.Table)
            return batch.column("id").to_pylist()
    """, input=folder, **table_settings(table="pyarrow", mini_batch_size="300 rows"))
    assert run_job(spec).status == "Completed"
    rows = (Path(spec.output) / "predictions.csv").read_text().split()
    assert rows == [str(n) for n in [*range(3000), *range(500), *range(1200), *range(200)]]


def test_rows_that_run_left_out_are_counted_and_too_many_are_refused(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], folder: Path,
) -> None:
    script = """
        import pandas

        def init():
            pass

        def run(batch: pandas.DataFrame):
            ids = batch["id"].tolist()
            return [n for n in ids if n != 42] + [0] * (77 in ids)
    """
    only = folder / "big.csv"
    spec = make_spec(
        script, input=only, input_type="uri_file", **table_settings(mini_batch_size="20 rows")
    )
    result = run_job(spec)
    assert (result.counts.rows, result.counts.items_failed) == (2998, 2)
    lines = (Path(spec.output) / "errors.jsonl").read_text().splitlines()
    missing, too_many = (json.loads(line) for line in lines)
    assert (missing["kind"], missing["rows_missing"]) == ("RowsMissing", 1)
    assert missing["items"] == [{"item": "big.csv", "rows": [40, 60]}]
    assert (too_many["rows"], too_many["kind"]) == ([77, 78], "Rows")
    assert "returned 2 rows for a table of 1" in too_many["exception"]


def test_a_row_that_cannot_be_read_is_named(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], tmp_path: Path,
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("id,name\n" + "".join(
        "7,x,too,many\n" if n == 30 else f"{n},x\n" for n in range(50)
    ))
    spec = make_spec("""
        import pandas

        def init():
            pass

        def run(batch: pandas.DataFrame):
            return batch["id"].tolist()
    """, input=path, input_type="uri_file", **table_settings(mini_batch_size="10 rows"))
    result = run_job(spec)
    assert (result.counts.rows, result.counts.items_failed) == (49, 1)
    [line] = (Path(spec.output) / "errors.jsonl").read_text().splitlines()
    assert json.loads(line)["rows"] == [30, 31]
    assert "Expected 2 fields" in json.loads(line)["exception"]


@pytest.mark.parametrize(("threshold", "status"), [(1, "Completed"), (0, "Failed")])
def test_a_damaged_parquet_file_is_a_failed_item_and_the_threshold_decides(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], folder: Path,
    threshold: int, status: str,
) -> None:
    whole = (folder / "rows.parquet").read_bytes()
    (folder / "damaged.parquet").write_bytes(whole[:-60] + b"\xff" * 40 + whole[-20:])
    script = ROWWISE.replace('"poison"', '"none"')
    result = run_job(make_spec(script, input=folder, **table_settings(error_threshold=threshold)))
    assert result.status == status
    assert result.counts.items_failed == 1
    if status == "Completed":
        assert result.counts.items_ok == 4900
        [line] = (Path(result.output) / "errors.jsonl").read_text().splitlines()
        found = json.loads(line)
        assert (found["item"], found["kind"]) == ("damaged.parquet", "InputUnreadable")
        assert "'damaged.parquet' is no Parquet file that can be read" in found["exception"]


@pytest.mark.parametrize(("name", "words"), [
    ("image.png", "'image.png' is no .csv"), ("more.csv.gz", "'more.csv.gz' is compressed"),
])
def test_a_file_without_rows_is_named_before_any_work(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], folder: Path, name: str,
    words: str,
) -> None:
    (folder / name).write_bytes(b"\x1f\x8b")
    spec = make_spec(ROWWISE, input=folder, **table_settings())
    result = run_job(spec)
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "InputNotTable"
    assert words in result.error["message"]


def test_a_file_that_changes_while_the_job_runs_is_named_and_not_read(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], tmp_path: Path,
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("id\n" + "".join(f"{n}\n" for n in range(40)))
    spec = make_spec(f"""
        import pandas

        def init():
            open({str(path)!r}, "a").write("40\\n")

        def run(batch: pandas.DataFrame):
            return batch["id"].tolist()
    """, input=path, input_type="uri_file", workers=1, **table_settings(mini_batch_size="10 rows"))
    result = run_job(spec)
    assert result.status == "Failed"
    assert result.error is not None
    assert "was changed after it was listed" in result.error["message"]
