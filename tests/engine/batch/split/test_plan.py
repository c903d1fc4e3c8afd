from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from inferay.engine.batch.split import parquet, tables
from inferay.engine.batch.split import plan as plans
from inferay.engine.batch.split.parquet import open_parquet, row_slices
from inferay.engine.batch.split.plan import Limits, Slice, group
from inferay.engine.batch.units import Piece, Unit, narrowed, pieces_of
from inferay.engine.sizes import BatchSize
from inferay.engine.storage.read_errors import ReadError
from inferay.errors import InvalidInput

CSV = "".join(["id,text\n", *(f'{n},"a ""{n}"",\nb"\n' for n in range(100))]).encode()


def rows(limit: int) -> BatchSize:
    return BatchSize(limit, "rows")


def parquet_of(frame: pandas.DataFrame, group_rows: int) -> bytes:
    out = io.BytesIO()
    frame.to_parquet(out, row_group_size=group_rows, index=False)
    return out.getvalue()


FRAME = pandas.DataFrame({
    "id": range(1000), "few": [None if n == 950 else n for n in range(1000)],
    "flag": pandas.array([None if n == 3 else n % 2 == 0 for n in range(1000)], dtype="boolean"),
    "object": [None if n == 700 else n % 2 == 0 for n in range(1000)],
    "text": [f"é{n}" for n in range(1000)],
})


@example([(5, 0), (10, 100)], 20, None)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 900)), max_size=8),
    st.none() | st.integers(1, 500), st.none() | st.integers(1, 60),
)
def test_parquet_slices_are_all_rows_once_and_parts_stay_in_their_group(
    groups: list[tuple[int, int]], bytes_max: int | None, rows_max: int | None
) -> None:
    found = list(row_slices(groups, bytes_max=bytes_max, rows_max=rows_max))
    total = sum(count for count, _ in groups)
    assert [row for start, stop, _ in found for row in range(start, stop)] == list(range(total))
    if rows_max is not None:
        assert all(stop - start == rows_max for start, stop, _ in found[:-1])
    elif bytes_max is not None:
        borders, at = {0}, 0
        for count, _ in groups:
            at += count
            borders.add(at)
        for start, stop, size in found:
            is_whole = {start, stop} <= borders
            assert is_whole or not any(start < border < stop for border in borders)
            assert size <= bytes_max or stop - start == 1


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30),
    st.none() | st.integers(1, 5), st.none() | st.integers(1, 40), st.none() | st.integers(1, 40),
)
def test_mini_batches_keep_order_and_limits(
    sizes: list[tuple[int, int]], units: int | None, size: int | None, count: int | None
) -> None:
    slices = [
        Slice(Unit(str(n), 1, 1, None, (0, items)), weight)
        for n, (weight, items) in enumerate(sizes)
    ]
    found = list(group(slices, Limits(units, size, count)))
    assert [unit for one in found for unit in one] == [unit for unit, _ in slices]
    weights = {unit.path: weight for unit, weight in slices}
    for one in found:
        assert units is None or len(one) <= units
        is_alone = len(one) == 1
        assert size is None or is_alone or sum(weights[unit.path] for unit in one) <= size
        assert count is None or is_alone or sum(unit.items for unit in one) <= count


@pytest.mark.parametrize("kind", ["pandas", "pyarrow"])
@pytest.mark.parametrize("size", [rows(1000), rows(7), rows(300), BatchSize(2000, "bytes")])
def test_parquet_slices_together_are_the_file(
    cut: Callable[..., Any], kind: str, size: BatchSize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH_ROWS", 64)
    data = parquet_of(FRAME, 300)
    found = cut(size, kind=kind, data__parquet=data)
    read = found.tables()
    if kind == "pyarrow":
        assert pyarrow.concat_tables(read).to_pylist() == \
            pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    else:
        whole = pandas.read_parquet(io.BytesIO(data))
        assert_frame_equal(pandas.concat(read, ignore_index=True), whole)
        assert {str(table["few"].dtype) for table in read} == {"float64"}


@pytest.mark.parametrize("counted", [False, True, ["few"], ["flag", "object"]])
def test_parquet_types_are_the_whole_files_also_where_no_missing_values_were_counted(
    cut: Callable[..., Any], counted: bool | list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH_ROWS", 64)
    frame = FRAME.astype({"few": "Int64"})   # integers in the file: pandas makes floats of them
    table = pyarrow.Table.from_pandas(frame).replace_schema_metadata(None)
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out, row_group_size=300, write_statistics=counted)
    found = cut(rows(90), data__parquet=out.getvalue())
    whole = pandas.read_parquet(out)
    assert str(whole["few"].dtype) == "float64"
    assert_frame_equal(found.frame(), whole)
    assert {tuple(map(str, table.dtypes)) for table in found.tables()} == \
        {tuple(map(str, whole.dtypes))}


def test_a_damaged_page_does_not_hinder_the_plan(cut: Callable[..., Any]) -> None:
    out = io.BytesIO()
    table = pyarrow.table({"n": list(range(100))})
    pyarrow.parquet.write_table(table, out, write_statistics=False, compression="snappy")
    data = out.getvalue()
    found = cut(rows(50), data__parquet=data[:4] + b"\xff" * 40 + data[44:])
    assert [unit.items for unit in found.units] == [50, 50]
    with pytest.raises(OSError, match=r"."):
        found.tables()


def test_parquet_rows_can_be_read_in_any_order(cut: Callable[..., Any]) -> None:
    found = cut(rows(90), data__parquet=parquet_of(FRAME, 250))
    for index in (5, 2, 3, 3, 11, 0, 1):
        [table] = found.tables([index])
        assert table["id"].tolist() == list(range(index * 90, min(1000, index * 90 + 90)))


@pytest.mark.parametrize("name", ["data__csv", "data__jsonl", "data__parquet"])
def test_any_items_of_a_mini_batch_are_read_alone(cut: Callable[..., Any], name: str) -> None:
    frame = pandas.read_csv(io.BytesIO(CSV))
    data = {
        "data__csv": CSV, "data__parquet": parquet_of(frame, 30),
        "data__jsonl": frame.to_json(orient="records", lines=True).encode(),
    }[name]
    found = cut(rows(40), **{name: data})
    units = found.mini_batches[1]
    for items in ((0, 40), (0, 1), (13, 14), (20, 40), (39, 40)):
        [(table, [source])] = found.inputs.tables(pieces_of(units, items))
        assert table["id"].tolist() == list(range(40 + items[0], 40 + items[1]))
        assert (source.first, source.rows) == (40 + items[0], items[1] - items[0])
        again = [Piece(unit, 0, unit.items) for unit in narrowed(units, items)]
        [(table, _)] = found.inputs.tables(again)
        assert table["id"].tolist() == list(range(40 + items[0], 40 + items[1]))


def test_json_lines_have_the_columns_and_types_of_the_whole_file(cut: Callable[..., Any]) -> None:
    objects: list[dict[str, Any]] = [{"a": n, "b": n} for n in range(20)]
    objects[3]["c"], objects[12]["b"] = "only here", 0.5
    text = "\r\n".join(json.dumps(one) for one in objects)
    found = cut(rows(5), data__jsonl=("\n" + text + "\n  \n").encode())
    assert len(found.units) == 4
    for table in found.tables():
        assert list(table.columns) == ["a", "b", "c"]
        assert [str(dtype) for dtype in table.dtypes] == ["int64", "float64", "str"]
    assert_frame_equal(found.frame(), pandas.DataFrame(objects))


def test_json_lines_without_any_value_have_the_numbers_of_the_whole_file(
    cut: Callable[..., Any]
) -> None:
    objects = [{"id": str(n), "v": None if 2 <= n < 6 else n * 1.5} for n in range(8)]
    found = cut(rows(2), data__jsonl="\n".join(map(json.dumps, objects)).encode())
    assert [str(table["v"].dtype) for table in found.tables()] == ["float64"] * 4
    assert_frame_equal(found.frame(), pandas.DataFrame(objects))


def test_types_come_from_all_over_a_large_file(
    cut: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "SAMPLE_BYTES", 400)
    monkeypatch.setattr(plans, "SAMPLE_BYTES", 400)
    lines = ["a,b,c\n", *(f"{n},{n},00{n}\n" for n in range(500))]
    lines[497] = "1.5,1,x\n"       # found by the sample of the last slice
    lines[250] = "7,,007\n"        # found by none
    found = cut(rows(4), data__csv="".join(lines).encode())
    read = found.tables()
    assert {str(table["a"].dtype) for table in read} == {"float64"}
    assert {str(table["c"].dtype) for table in read} == {"str"}
    assert [str(table["b"].dtype) for table in read].count("float64") == 1
    assert found.frame()["c"][1] == "001"


def test_small_files_share_a_table_only_where_their_types_are_equal(
    cut: Callable[..., Any]
) -> None:
    found = cut(
        rows(100), a__csv=b"x\n1\n2\n", b__csv=b"x\n3\n", c__csv=b"x\n1.5\n", d__csv=b"y\n4\n"
    )
    assert len(found.mini_batches) == 1
    assert [table.iloc[:, 0].tolist() for table in found.tables()] == [[1, 2, 3], [1.5], [4]]


@pytest.mark.parametrize("kind", ["pandas", "pyarrow"])
def test_what_cannot_be_read_does_not_hinder_the_plan(cut: Callable[..., Any], kind: str) -> None:
    found = cut(
        rows(2), kind=kind, a__csv=b'x,y\n1,2\n3,4\n5,"6\n7,8\n', b__csv=b"x\n1\n2\n\xff\n",
        c__jsonl=b'{"a": 1}\n{"a": 2}\n{"a": \n[1]\n',
    )
    assert [unit.items for unit in found.units] == [2, 1, 2, 1, 2, 2]
    assert [len(table) for table in found.tables([0, 2, 4])] == [2, 2, 2]
    for broken in (1, 5) if kind == "pandas" else (5,):   # Arrow closes an open quote itself
        with pytest.raises(ValueError, match=r"."):
            found.tables([broken])


def test_a_parquet_file_that_cannot_be_read_is_one_item_that_fails_by_name(
    cut: Callable[..., Any]
) -> None:
    whole = parquet_of(FRAME, 300)
    footer = whole[:-60] + b"\xff" * 40 + whole[-20:]
    found = cut(
        rows(1001), a__parquet=b"", b__parquet=footer, c__parquet=whole[:-20], d__parquet=whole,
        e__parquet=b"PAR1 and no more",
    )
    assert [(one.path, one.items) for one in found.units] == [
        ("a.parquet", 1), ("b.parquet", 1), ("c.parquet", 1), ("d.parquet", 1000), ("e.parquet", 1),
    ]
    for unit in found.units:
        if unit.path == "d.parquet":
            assert unit.rows == (0, 1000)
            continue
        assert unit.describe() == {"item": unit.path}
        with pytest.raises(ReadError, match=f"'{unit.path}' is no Parquet file"):
            list(found.inputs.tables(pieces_of([unit])))


def test_a_storage_that_fails_is_not_taken_for_a_damaged_file() -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise TimeoutError("no answer")

    with pytest.raises(TimeoutError):
        open_parquet(Failing(b"PAR1" * 9), "a.parquet")


def test_a_file_is_read_whole_where_none_is_cut(cut: Callable[..., Any]) -> None:
    found = cut(rows(10), is_cut=False, data__csv=CSV, more__parquet=parquet_of(FRAME, 100))
    assert [len(table) for table in found.tables()] == [100, 1000]


def test_every_file_is_in_the_plan_with_rows_or_without(cut: Callable[..., Any]) -> None:
    found = cut(rows(10), a__csv=b"", b__csv=b"id\n", c__csv=b"id\n1\n", _SUCCESS=b"", d__jsonl=b"")
    assert [(unit.path, unit.items) for unit in found.units] == [
        ("_SUCCESS", 0), ("a.csv", 0), ("b.csv", 0), ("c.csv", 1), ("d.jsonl", 0),
    ]
    assert [len(table) for table in found.tables()] == [1]


@pytest.mark.parametrize("name", ["a__png", "noending", "a__csv__gz", "a__json"])
def test_a_file_that_has_no_rows_is_refused_by_name(cut: Callable[..., Any], name: str) -> None:
    with pytest.raises(InvalidInput, match=name.replace("__", ".")):
        cut(rows(10), **{name: b"x"})
