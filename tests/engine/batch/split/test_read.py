"""How pieces are read: with which types, and with which index."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pandas
import pytest
from pandas.testing import assert_frame_equal

from inferay.engine.batch.units import Piece, narrowed, pieces_of
from inferay.engine.sizes import BatchSize

MIXED = b"id,v\n001,1\nx,2\n003,3\n004,99\n005,5.5\n006,6\n"


def rows(limit: int) -> BatchSize:
    return BatchSize(limit, "rows")


def parquet_of(frame: pandas.DataFrame, **options: Any) -> bytes:
    out = io.BytesIO()
    frame.to_parquet(out, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["pandas", "pyarrow"])
@pytest.mark.parametrize("name", ["data__csv", "data__jsonl", "data__parquet"])
def test_parts_of_a_file_that_was_not_cut_have_the_types_of_the_whole_file(
    cut: Callable[..., Any], name: str, kind: str
) -> None:
    frame = pandas.read_csv(io.BytesIO(MIXED)).assign(n=[1, 2, float("nan"), 4, 5, 6])
    data = {
        "data__csv": frame.to_csv(index=False).encode(), "data__parquet": parquet_of(frame),
        "data__jsonl": frame.to_json(orient="records", lines=True).encode(),
    }[name]
    found = cut(rows(100), kind=kind, **{name: data})
    [whole] = found.tables()
    [unit] = found.units
    for start, stop in ((0, 3), (4, 6), (4, 5), (2, 3)):
        again = [Piece(one, 0, one.items) for one in narrowed([unit], (start, stop))]
        for pieces in (pieces_of([unit], (start, stop)), again):
            [(part, _)] = found.inputs.tables(pieces)
            if kind == "pyarrow":
                assert part.equals(whole.slice(start, stop - start))
            else:
                assert_frame_equal(part, whole[start:stop].reset_index(drop=True))


@pytest.mark.parametrize("index", [["a", "b", "c"], [0, 1, 2], [7, 7, 1]])
def test_files_with_an_index_of_their_own_keep_it_and_stand_alone(
    cut: Callable[..., Any], index: list[Any]
) -> None:
    frame = pandas.DataFrame({"x": [1, 2, 3]}, index=pandas.Index(index))
    data = parquet_of(frame)
    for count, tables in ((1, 6), (100, 2)):
        found = cut(rows(count), a__parquet=data, b__parquet=data).tables()
        assert len(found) == tables
        assert_frame_equal(pandas.concat(found), pandas.concat([frame, frame]))


@pytest.mark.parametrize("index", [
    pandas.RangeIndex(3), pandas.RangeIndex(5, 8), pandas.RangeIndex(0, 6, 2),
    pandas.RangeIndex(3, name="n"),
])
def test_the_numbers_of_rows_are_no_index_and_begin_at_0(
    cut: Callable[..., Any], index: pandas.RangeIndex
) -> None:
    frame = pandas.DataFrame({"x": [1, 2, 3]}, index=index)
    data = parquet_of(frame)
    for count, sizes in ((1, [1] * 6), (3, [3, 3]), (100, [6])):
        found = cut(rows(count), a__parquet=data, b__parquet=data).tables()
        assert [len(table) for table in found] == sizes
        assert all(table.index.equals(pandas.RangeIndex(len(table))) for table in found)
        assert {table.index.name for table in found} == {None}
