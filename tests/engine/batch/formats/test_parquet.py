from __future__ import annotations

import datetime
import io
import math
import subprocess
import sys
from collections.abc import Iterable
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.batch.formats import parquet_file
from inferay.engine.batch.formats.columns import Columns, union
from inferay.engine.batch.formats.parquet import ParquetEncoder
from inferay.engine.batch.formats.parquet_file import parquet_bytes
from inferay.engine.batch.formats.sources import Source
from inferay.engine.batch.rows import RowsError
from inferay.errors import JobError

KINDS: list[st.SearchStrategy[Any]] = [
    st.none() | st.text(),
    st.none() | st.integers(-10**6, 10**6) | st.floats(width=32),
    st.none() | st.booleans(),
    st.none() | st.lists(st.none() | st.integers(0, 9) | st.floats(width=16), max_size=3).map(
        lambda found: {"values": found}
    ),
    st.none() | st.binary(max_size=5),
    st.none() | st.datetimes(),
    st.none() | st.dictionaries(
        st.sampled_from("xy"), st.none() | st.integers(0, 9), min_size=1, max_size=2
    ).map(lambda found: {"nested": found}),
    st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=2, max_value=10**6,
                            min_value=-10**6),
    st.lists(st.floats(), max_size=3).map(np.array),
]


def encode(results: Iterable[Any], *, runs: int = 1, files: int = 0) -> tuple[bytes, Columns]:
    """Return what a worker writes for these results, a run of so many at a time."""
    encoder = ParquetEncoder()
    data = b""
    columns: Columns = ()
    for number, result in enumerate(results):
        encoded = encoder.encode(result, [Source(f"{n}.txt") for n in range(files)])
        columns = union(columns, encoded.columns)
        data += encoder.write(encoded)
        if number % runs == runs - 1:
            data += encoder.end_run()
    return data + encoder.end_run(), columns


def divide(rows: list[Any], size: int) -> list[list[Any]]:
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def chunked(data: bytes, size: int = 1000) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def file_of(results: Iterable[Any], **options: Any) -> bytes:
    data, columns = encode(results, **options)
    return b"".join(parquet_bytes(iter(chunked(data)), columns))


def table_of(*results: Any, **options: Any) -> pa.Table:
    return pq.read_table(io.BytesIO(file_of(results, **options)))


def column_of(*results: Any) -> pa.ChunkedArray:
    return table_of(*results)["prediction"]


@given(st.sampled_from(KINDS).flatmap(lambda kind: st.lists(kind, max_size=12)),
       st.integers(1, 12), st.integers(1, 3), st.integers(1, 7))
def test_the_file_does_not_depend_on_how_the_rows_were_divided(
    rows: list[Any], size: int, runs: int, group_rows: int
) -> None:
    before = parquet_file.GROUP_ROWS
    parquet_file.GROUP_ROWS = group_rows
    try:
        one_by_one = file_of([row] for row in rows)
        divided = file_of(divide(rows, size), runs=runs)
    finally:
        parquet_file.GROUP_ROWS = before
    assert divided == one_by_one
    table = pq.read_table(io.BytesIO(divided))
    assert table.num_rows == len(rows)
    if rows and all(isinstance(row, (str, bytes, bool, type(None))) for row in rows):
        assert table["prediction"].to_pylist() == rows


def test_row_groups_end_where_rows_or_bytes_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_file, "GROUP_ROWS", 4)
    monkeypatch.setattr(parquet_file, "GROUP_BYTES", 200)
    rows: list[Any] = [{"x": "a"}] * 5 + [{"x": "b" * 300}] * 2 + [{"y": ["c" * 90]}] * 5
    sizes = []
    for division in (1, 5, 12):
        found = pq.ParquetFile(io.BytesIO(file_of(divide(rows, division))))
        sizes.append([
            found.metadata.row_group(n).num_rows for n in range(found.metadata.num_row_groups)
        ])
    assert sizes[0] == sizes[1] == sizes[2] == [4, 2, 1, 3, 2]


def test_a_row_says_which_file_it_is_of() -> None:
    assert table_of(["x", "y"], ["z"], files=2).to_pylist() == [
        {"row": 0, "prediction": "x", "file": "0.txt"},
        {"row": 0, "prediction": "y", "file": "1.txt"},
        {"row": None, "prediction": "z", "file": None},
    ]
    assert table_of([{"file": 1}], files=1).to_pylist() == [{"row": 0, "file": 1}]


@pytest.mark.parametrize(("value", "expected", "kind"), [
    (True, True, pa.bool_()),
    (2**62, 2**62, pa.int64()),
    (0.1, 0.1, pa.float64()),
    (np.float32(0.1), float(np.float32(0.1)), pa.float32()),
    (np.int8(3), 3, pa.int8()),
    (np.datetime64("2026-01-02T03"), datetime.datetime(2026, 1, 2, 3), pa.timestamp("ms")),
    ("é", "é", pa.string()),
    ("bad \udcff", "bad \\xff", pa.string()),
    (b"\xff", b"\xff", pa.binary()),
    (None, None, pa.null()),
    (pd.NA, None, pa.null()),
    (pd.NaT, None, pa.null()),
    (pd.Timestamp("2026-01-02", tz="UTC"), pd.Timestamp("2026-01-02", tz="UTC"),
     pa.timestamp("us", "UTC")),
    (datetime.date(2026, 1, 2), datetime.date(2026, 1, 2), pa.date32()),
    (datetime.time(1, 2), datetime.time(1, 2), pa.time64("us")),
    (datetime.timedelta(1), datetime.timedelta(1), pa.duration("us")),
    (Decimal("1.10"), Decimal("1.10"), pa.decimal128(38, 2)),
    (UUID(int=1), str(UUID(int=1)), pa.string()),
    (np.array([1.5, 2.5], np.float32), [1.5, 2.5], pa.list_(pa.float32())),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]], pa.list_(pa.list_(pa.int64()))),
    (np.zeros(0), [], pa.list_(pa.float64())),
])
def test_a_value_keeps_what_it_is(value: Any, expected: Any, kind: pa.DataType) -> None:
    found = column_of([value])
    assert found.to_pylist() == [expected]
    if kind != pa.timestamp("ms"):
        assert plain(found.type) == kind


def plain(kind: pa.DataType) -> pa.DataType:
    """Return the type with the name that we give to a list's field, not Parquet's."""
    return pa.list_(plain(kind.value_type)) if pa.types.is_list(kind) else kind


def test_nan_stays_nan_and_none_is_null() -> None:
    first, second, third = column_of([math.nan, None, 1]).to_pylist()
    assert (math.isnan(first), second, third) == (True, None, 1.0)


def test_an_array_is_a_column_and_a_list_a_row() -> None:
    assert column_of(np.array([[1.5, 2.5], [3.5, 4.5]])).to_pylist() == [[1.5, 2.5], [3.5, 4.5]]
    assert column_of(np.array([1, 2], np.uint8)).type == pa.uint8()
    assert table_of([("a", 1), ["b"]]).drop_columns(["row", "file"]).to_pylist() == [
        {"prediction_0": "a", "prediction_1": 1}, {"prediction_0": "b", "prediction_1": None},
    ]
    assert column_of(np.array(["a", "b"])).to_pylist() == ["a", "b"]
    assert column_of(np.zeros((2, 2, 2))).to_pylist() == np.zeros((2, 2, 2)).tolist()


def test_a_frame_has_its_columns_as_pandas_would_write_them() -> None:
    frame = pd.DataFrame({
        "i": pd.array([1, None], dtype="Int64"),
        "f": [0.5, np.nan],
        "s": ["x", None],
        "t": pd.to_datetime(pd.Series(["2026-01-02", None])).tolist(),
        "b": [True, False],
        "c": pd.Categorical(["x", "y"]),
        "o": [[1, 2], np.array([3])],
        "p": pd.arrays.PeriodArray(pd.period_range("2026-01", periods=2, freq="M")),
        "q": pd.arrays.SparseArray([0, 1]),
        "m": pd.array([1.5, None], dtype="Float32"),
        7: [b"x", b"y"],
    }, index=[5, 6])
    found = table_of(frame).drop_columns(["row", "file"])
    assert found.to_pylist() == [
        {"i": 1, "f": 0.5, "s": "x", "t": datetime.datetime(2026, 1, 2), "b": True, "c": "x",
         "o": [1, 2], "p": "2026-01", "q": 0, "m": 1.5, "7": b"x"},
        {"i": None, "f": None, "s": None, "t": None, "b": False, "c": "y", "o": [3],
         "p": "2026-02", "q": 1, "m": None, "7": b"y"},
    ]
    assert table_of(frame[:0], frame[:1]).num_rows == 1


def test_arrow_tables_are_taken_as_they_are() -> None:
    table = pa.table({
        "large": pa.array(["x", None], pa.large_string()),
        "fixed": pa.array([[1.5, 2.5], None], pa.list_(pa.float32(), 2)),
        "dict": pa.array(["u", "v"]).dictionary_encode(),
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        "view": pa.array(["a", "b"], pa.string_view()),
        "s": pa.array([{"z": 1}, None], pa.struct([("z", pa.int8())])),
    })
    twice = pa.concat_tables([table, table]).slice(1, 3)
    for one in (twice, twice.combine_chunks().to_batches()[0]):
        found = table_of(one).drop_columns(["row", "file"])
        assert found.to_pylist() == twice.to_pylist()
    assert column_of(pa.chunked_array([[1], [2]])).to_pylist() == [1, 2]


def test_mini_batches_of_other_columns_are_one_table() -> None:
    found = table_of([{"a": 1}], [{"b": "x"}], [{"a": 2.5, "c": {"d": 1}}], [{"c": {"e": [1]}}])
    assert found.drop_columns(["row", "file"]).to_pylist() == [
        {"a": 1.0, "b": None, "c": None},
        {"a": None, "b": "x", "c": None},
        {"a": 2.5, "b": None, "c": {"d": 1, "e": None}},
        {"a": None, "b": None, "c": {"d": None, "e": [1]}},
    ]


def test_an_integer_that_a_double_does_not_hold_is_not_rounded() -> None:
    with pytest.raises(JobError, match=r"int64 \(beyond 2\*\*53\).* and double"):
        table_of([2**60 + 1], [0.5])
    assert column_of([2**60 + 1], [1]).to_pylist() == [2**60 + 1, 1]


def test_a_file_without_rows_can_be_read() -> None:
    assert table_of([]).num_rows == 0
    assert pq.read_table(io.BytesIO(b"".join(parquet_bytes(iter(()), ())))).column_names == [
        "row", "file"
    ]


def test_what_a_column_cannot_hold_is_refused_with_its_name() -> None:
    for result, said in (
        (None, "run() returned None"),
        (["a", 1], "column 'prediction'"),
        ([{"x": object()}], "column 'x'"),
        ([{"x": 2**70}], "column 'x'"),
        (pd.DataFrame({"y": [1, "a"]}), "column 'y'"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns named 'a'"),
        ([{f"k{n}": 1 for n in range(3_000)}], "more than 2000 columns"),
    ):
        with pytest.raises(RowsError) as caught:
            encode([result])
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


def test_rows_of_types_that_do_not_fit_are_kept_as_text() -> None:
    columns: Columns = ()
    data = b""
    for result in ([1], ["x"], [b"y"], [{"prediction": {"a": 1}}], [None]):
        one, found = encode([result])
        data += one
        columns = union(columns, found, is_lenient=True)
    table = pq.read_table(io.BytesIO(b"".join(parquet_bytes(iter([data]), columns))))
    assert table["prediction"].to_pylist() == ["1", "x", "\"b'y'\"", '{"a": 1}', None]


def test_only_a_job_that_writes_parquet_imports_pyarrow() -> None:
    program = (
        "import sys; from inferay.engine.batch.formats import make_encoder;"
        "from inferay.engine.batch import driver, output, scorer;"
        "make_encoder('append_row', 'a.csv'); make_encoder('append_row', 'a.jsonl');"
        "make_encoder('summary_only', 'a.parquet');"
        "print(sorted({'pyarrow', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
