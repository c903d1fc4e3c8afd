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
