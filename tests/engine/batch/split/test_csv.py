from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pandas
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from inferay.engine.batch.split import records
from inferay.engine.sizes import BatchSize

HEADERS = ["h,k\n", "h\n", "\ufeffh,k\r\n", "\n h,k\n", '"h\n",k\n', "h\r", "a,a,b\n", ",\n"]
ALPHABETS = [
    ['"', ",", "\n", "a", "b", "\r\n"],
    ['"', ",", "\n", "a", " ", '""', "é", "\r\n"],
    [" ", "\t", "\n", "\r\n", "a", ",", '"'],
    ['"x"', ",", "\n", "y", '"p\nq"', '""', "\r\n"],
    ["1", "2,3\n", "1.5", ",", "\n", "-", "007", "NA"],
    ["True,1\n", "False,\n", "0.1,x\n", "5,7\n", "\n", "18446744073709551615,2\n", "1e400,-\n"],
    ["1,2\r", "3\r", "x", ",", '"a\rb"\r'],
]
texts = st.builds(
    "".join,
    st.sampled_from(ALPHABETS).flatmap(lambda some: st.lists(st.sampled_from(some), max_size=40)),
)


def pandas_frame(data: bytes) -> pandas.DataFrame:
    return pandas.read_csv(io.BytesIO(data), low_memory=False)


@pytest.mark.filterwarnings("ignore")
@settings(
    max_examples=300, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(
    st.sampled_from(HEADERS), texts, st.sampled_from([1, 2, 3, 7, 64]),
    st.one_of(st.integers(1, 5).map(lambda n: BatchSize(n, "rows")),
              st.integers(1, 40).map(lambda n: BatchSize(n, "bytes"))),
)
def test_the_slices_of_a_csv_together_are_what_pandas_reads_from_the_whole_file(
    cut: Callable[..., Any], header: str, text: str, chunk: int, size: BatchSize,
) -> None:
    data = (header + text).encode()
    # pandas itself loses a row that begins with a comma after a blank line that CR alone ends.
    assume(not re.search(rb"(^|[\r\n])[ \t]*\r,", data))
    try:
        whole = pandas_frame(data)
    except ValueError:   # it is no CSV: see below for what becomes of it
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK_BYTES", chunk)
        found = cut(size, data__csv=data)
    assert sum(unit.items for unit in found.units) == len(whole)
    if size.unit == "rows":
        assert all(sum(unit.items for unit in one) == size.limit
                   for one in found.mini_batches[:-1])
    if len(whole):
        tables = found.tables()
        joined = pandas.concat(tables) if len(tables) > 1 else tables[0]
        assert_frame_equal(joined.reset_index(drop=True), whole.reset_index(drop=True))


@pytest.mark.parametrize("header", ["a,a,a", "a,a.1,a", ",,", "0,0,1", "a,a"])
def test_columns_of_one_name_have_each_their_own_type(
    cut: Callable[..., Any], header: str
) -> None:
    lines = [header, *(f"0.{n},00{n},{n}" for n in range(6)), "1,x,7"]
    data = "\n".join(lines).encode()
    whole = pandas_frame(data)
    found = pandas.concat(cut(BatchSize(2, "rows"), data__csv=data).tables())
    has_index = header == "a,a"   # of the first column, which has no name
    assert_frame_equal(found if has_index else found.reset_index(drop=True), whole)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("header", ["a,b", "a", '"a,b"', '"a",b'])
@pytest.mark.parametrize(("name", "sep", "blank"), [("a__csv", ",", " \t"), ("a__tsv", "\t", "  ")])
def test_lines_of_blanks_are_no_records_of_an_arrow_table_but_text_in_quotes(
    cut: Callable[..., Any], name: str, sep: str, blank: str, header: str, end: str
) -> None:
    quoted, is_single = f'"x{end}{blank}{end}"', header in ("a", '"a,b"')
    values = ["y ", quoted, " z", "7"]
    if not is_single:
        values = [f"{n},{value}" for n, value in enumerate(values)]
    one, two, *more = values
    lines = [blank, header, blank, "", one, blank, two, blank, blank, *more, blank]
    data = end.join(lines).replace(",", sep).encode()
    for count in (5, 2, 1):
        found = cut(BatchSize(count, "rows"), kind="pyarrow", **{name: data})
        read = [list(row.values()) for table in found.tables() for row in table.to_pylist()]
        assert [row[-1] for row in read] == ["y ", quoted.strip('"'), " z", "7"]
        assert is_single or [row[0] for row in read] == [0, 1, 2, 3]


def test_lines_of_blanks_leave_a_column_of_numbers_one(cut: Callable[..., Any]) -> None:
    found = cut(BatchSize(2, "rows"), kind="pyarrow", a__csv=b"a\n1\n  \n2\n \n3\n")
    assert [table["a"].to_pylist() for table in found.tables()] == [[1, 2], [3]]
