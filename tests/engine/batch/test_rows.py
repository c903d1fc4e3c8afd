from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.batch.rows import RowsError, to_rows

# A lone "\r" in a field is written as pandas writes it: unquoted before Python 3.13.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)
fields = (
    st.none() | st.booleans() | st.integers(-10**9, 10**9) | texts
    | st.floats(allow_nan=True, allow_infinity=True)
)


def text_of(result: Any) -> str:
    return to_rows(result, is_text_wanted=True)[1].decode("utf-8", "surrogateescape")


def as_pandas(rows: list[Any]) -> str:
    frame = pd.DataFrame(rows, dtype=object)
    text: str = frame.to_csv(sep=" ", header=False, index=False, lineterminator="\n")
    return text


@st.composite
def tables(draw: st.DrawFn) -> list[list[Any]]:
    width = draw(st.integers(1, 4))
    return draw(st.lists(st.lists(fields, min_size=width, max_size=width), max_size=5))


@given(tables())
def test_lists_are_written_as_pandas_writes_a_frame(rows: list[list[Any]]) -> None:
    assert text_of(rows) == (as_pandas(rows) if rows else "")
    assert text_of([tuple(row) for row in rows]) == text_of(rows)


@given(tables())
def test_a_frame_is_written_as_azure_writes_it(rows: list[list[Any]]) -> None:
    frame = pd.DataFrame(rows, dtype=object)
    count, data = to_rows(frame, is_text_wanted=True)
    assert count == len(rows)
    assert data.decode() == frame.to_csv(sep=" ", header=False, index=False, lineterminator="\n")


@given(st.lists(texts, min_size=1, max_size=6))
def test_a_row_of_any_strings_reads_back(row: list[str]) -> None:
    (back,) = csv.reader(io.StringIO(text_of([row]), newline=""), delimiter=" ")
    assert back == row


@given(st.lists(texts, max_size=5))
def test_there_is_a_line_per_string_whatever_is_in_it(items: list[str]) -> None:
    count, data = to_rows(items, is_text_wanted=True)
    assert count == len(items)
    plain = [item for item in items if "\n" not in item and "\r" not in item]
    if plain == items:
        assert data.decode() == "".join(f"{item}\n" for item in items)


@pytest.mark.parametrize(("item", "line"), [
    ("plain", "plain"),
    ("with space, comma and \"quote\"", "with space, comma and \"quote\""),
    ("two\nlines", '"two\nlines"'),
    ("two\r\"lines\"", '"two\r""lines"""'),
    ("", ""),
    ("=cmd", "=cmd"),
    (["a b", 'c"d', "e\nf", "g"], '"a b" "c""d" "e\nf" g'),
    (("x", 1, 0.1, True, None, math.nan), "x 1 0.1 True  "),
    ([""], '""'),
    ({"b": 1, "a": "é\n"}, '{"b": 1, "a": "é\\n"}'),
    (3, "3"),
    (0.1, "0.1"),
    (True, "True"),
    (np.float32(0.1), "0.1"),
    (np.int64(7), "7"),
    ([np.float32(0.1), np.float32("nan"), np.int8(3), np.bool_(True)], "0.1  3 True"),
    ([pd.NaT, pd.NA, pd.Timestamp("2026-01-02")], '  "2026-01-02 00:00:00"'),
    (np.array([1.5, math.nan, 3.0]), "1.5  3.0"),
    (pd.Series(["a b", None, 2]), '"a b"  2'),
])
def test_an_item_of_a_list_is_a_line(item: Any, line: str) -> None:
    assert to_rows([item], is_text_wanted=True) == (1, f"{line}\n".encode())


def test_a_long_array_in_a_list_is_written_whole() -> None:
    """Its `str` leaves out the middle: an embedding of 1,536 numbers would be lost."""
    row = np.arange(2000, dtype=np.float64)
    (line,) = text_of([row]).splitlines()
    assert [float(field) for field in line.split(" ")] == row.tolist()


@pytest.mark.parametrize(("result", "count", "text"), [
    ([], 0, ""),
    ((1, 2), 2, "1\n2\n"),
    (pd.Series([1, 2, 3]), 3, "1\n2\n3\n"),
    (pd.Series(["a b", "c"]), 2, "a b\nc\n"),
    (np.array([1, 2]), 2, "1\n2\n"),
    (np.array([[1.0, math.nan], [3.0, 4.5]]), 2, "1.0 \n3.0 4.5\n"),
    (np.array(["x", "y z"]), 2, "x\ny z\n"),
    (np.array([0.1, 2.0], dtype=np.float32), 2, "0.1\n2.0\n"),
    (np.array([[0.1, 2.0]], dtype=np.float32), 1, "0.1 2.0\n"),
    (pd.DataFrame({"p": [0.5, None], "name": ["a b", "c"]}), 2, '0.5 "a b"\n c\n'),
    (pd.DataFrame({"p": [1]}, index=[99]), 1, "1\n"),
    (pd.DataFrame(), 0, ""),
    ((str(n) for n in range(3)), 3, "0\n1\n2\n"),
    (map(str, [1, 2]), 2, "1\n2\n"),
    (iter(["a"]), 1, "a\n"),
])
def test_what_has_rows_is_taken(result: Any, count: int, text: str) -> None:
    assert to_rows(result, is_text_wanted=True) == (count, text.encode())


@pytest.mark.parametrize(("result", "named"), [
    (None, "None"), ({"a": 1}, "dict"), (3, "int"), (2.5, "float"), ("abc", "str"),
    (b"abc", "bytes"), ({1}, "set"), (np.array(3), "ndarray"), (np.float64(1), "float64"),
    (object(), "object"), (True, "bool"),
])
def test_what_has_no_rows_is_refused_by_its_type(result: Any, named: str) -> None:
    with pytest.raises(RowsError, match=rf"run\(\) returned .*{named}; it has to return a list"):
        to_rows(result, is_text_wanted=True)
    with pytest.raises(RowsError):
        to_rows(result, is_text_wanted=False)


@pytest.mark.parametrize("result", [
    ["a", "b"], pd.DataFrame({"a": [1, 2]}), pd.Series([1, 2]), np.zeros((2, 3)), iter("ab"),
])
def test_rows_that_only_count_have_no_text(result: Any) -> None:
    assert to_rows(result, is_text_wanted=False) == (2, b"")


@given(
    st.lists(st.integers(-2**63, 2**63 - 1)) | st.lists(st.floats()) | st.lists(st.booleans()),
)
def test_an_array_of_numbers_has_the_text_of_its_items(numbers: list[Any]) -> None:
    array = np.array(numbers, dtype=type(numbers[0]) if numbers else int)
    assert text_of(array) == "".join(str(number) + "\n" for number in array)
    with np.errstate(over="ignore"):
        single = array.astype("float32")
    assert text_of(single) == "".join(str(number) + "\n" for number in single)


def test_a_generator_that_raises_raises() -> None:
    def rows() -> Iterator[str]:
        yield "a"
        raise KeyError("the user's")

    for is_text_wanted in (True, False):
        with pytest.raises(KeyError):
            to_rows(rows(), is_text_wanted=is_text_wanted)


def test_bytes_of_a_file_name_come_out_as_they_were() -> None:
    name = b"\xff\xfe.txt".decode("utf-8", "surrogateescape")
    assert to_rows([name, [name]], is_text_wanted=True)[1] == b"\xff\xfe.txt\n\xff\xfe.txt\n"
    frame = pd.DataFrame({"file": pd.Series([name], dtype=object)})
    assert to_rows(frame, is_text_wanted=True)[1] == b"\xff\xfe.txt\n"
