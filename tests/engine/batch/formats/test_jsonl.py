from __future__ import annotations

import datetime
import json
import math
import uuid
from collections import namedtuple
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.batch.formats.jsonl import JsonEncoder
from inferay.engine.batch.formats.sources import Source
from inferay.engine.batch.rows import RowsError

Pair = namedtuple("Pair", "label score")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def lines(result: Any, files: int = 0) -> list[dict[str, Any]]:
    encoder = JsonEncoder()
    sources = [Source(f"{number}.txt") for number in range(files)]
    encoded = encoder.encode(result, sources)
    text = encoder.write(encoded) + encoder.end_run()
    found = [json.loads(line) for line in text.splitlines()]
    assert encoded.rows == len(found)
    return found


def values(result: Any) -> list[Any]:
    return [line["prediction"] for line in lines(result)]


@given(st.lists(st.dictionaries(st.sampled_from("abc"), json_values), max_size=4))
def test_what_json_holds_reads_back(rows: list[dict[str, Any]]) -> None:
    assert [{k: v for k, v in line.items() if k not in ("row", "file")} for line in lines(rows)] \
        == rows


def test_a_row_says_which_file_it_is_of() -> None:
    assert lines(["x", "y"], files=2) == [
        {"row": 0, "prediction": "x", "file": "0.txt"},
        {"row": 0, "prediction": "y", "file": "1.txt"},
    ]
    assert list(lines(["x"], files=1)[0]) == ["row", "prediction", "file"]
    assert lines(["x", "y"], files=1)[1] == {"row": 1, "prediction": "y", "file": "0.txt"}
    assert lines(["x"], files=2) == [{"row": None, "prediction": "x", "file": None}]


def test_a_column_of_ones_own_stands_for_ours() -> None:
    assert lines([{"file": "mine", "row": 7}], files=1) == [{"row": 7, "file": "mine"}]


@pytest.mark.parametrize(("result", "expected"), [
    ([("a", 1)], [{"prediction_0": "a", "prediction_1": 1}]),
    ([["a", 1]], [{"prediction_0": "a", "prediction_1": 1}]),
    ([Pair("a", 0.5)], [{"label": "a", "score": 0.5}]),
    ([{1: "x"}], [{"1": "x"}]),
    (np.array([[1.5, 2.5]]), [{"prediction": [1.5, 2.5]}]),
    (pd.DataFrame({"a": [1, 2], 0: ["x", None]}), [{"a": 1, "0": "x"}, {"a": 2, "0": None}]),
    (pd.DataFrame(index=[1, 2]), [{}, {}]),
    (pd.DataFrame({("a", "b"): [1]}), [{"a_b": 1}]),
    (pd.Series([1], name="s"), [{"s": 1}]),
    (pd.Series([1]), [{"prediction": 1}]),
    (pa.table({"a": [[1], None]}), [{"a": [1]}, {"a": None}]),
    (pa.array([1, None]), [{"prediction": 1}, {"prediction": None}]),
    ([], []),
])
def test_fields_have_the_names_that_the_result_gives(
    result: Any, expected: list[dict[str, Any]]
) -> None:
    found = [{k: v for k, v in line.items() if k not in ("row", "file")} for line in lines(result)]
    assert found == expected


@pytest.mark.parametrize(("value", "expected"), [
    (math.nan, None),
    (math.inf, None),
    ([1.0, -math.inf], [1.0, None]),
    (np.float32(0.1), 0.1),
    (np.float32("nan"), None),
    (np.float64(0.1), 0.1),
    (np.int64(2**62), 2**62),
    (np.bool_(True), True),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    (np.array([0.1, np.nan], np.float32), [0.1, None]),
    ({"a": np.array([1]), 2: (1, {3})}, None),
    (pd.NaT, None),
    (pd.NA, None),
    (pd.Timestamp("2026-01-02 03:04:05.000006", tz="UTC"), "2026-01-02T03:04:05.000006+00:00"),
    (datetime.date(2026, 1, 2), "2026-01-02"),
    (np.datetime64("2026-01-02"), "2026-01-02"),
    (datetime.timedelta(seconds=1), "0:00:01"),
    (b"\xff\x00", "/wA="),
    (Decimal("1.10"), "1.10"),
    (uuid.UUID(int=1), str(uuid.UUID(int=1))),
    (PurePosixPath("a/b"), "a/b"),
    ("bad \udcff, é", "bad \udcff, é"),
    (pa.scalar(3), 3),
])
def test_a_value_is_written_so_that_json_holds_it(value: Any, expected: Any) -> None:
    if isinstance(value, dict):
        with pytest.raises(RowsError, match=r"row 0 .* an object of type set; return text"):
            lines([value])
    else:
        item = [value] if isinstance(value, list) else value
        result = [(value,)] if isinstance(value, list) else [item]
        line = lines(result)[0]
        assert (line.get("prediction_0") if isinstance(value, list) else line["prediction"]) \
            == expected


def test_columns_of_a_frame_keep_their_values() -> None:
    frame = pd.DataFrame({
        "f4": np.array([0.1, np.nan], np.float32),
        "i": pd.array([1, None], dtype="Int64"),
        "t": pd.to_datetime(pd.Series(["2026-01-02", None])),
        "c": pd.Categorical(["x", None]),
        "o": [{"a": [1]}, np.array([1.5])],
        "p": pd.period_range("2026-01", periods=2, freq="M"),
    })
    first, second = lines(frame)
    assert first == {"row": None, "f4": 0.1, "i": 1, "t": "2026-01-02T00:00:00", "c": "x",
                     "o": {"a": [1]}, "p": "2026-01", "file": None}
    assert second == {"row": None, "f4": None, "i": None, "t": None, "c": None, "o": [1.5],
                      "p": "2026-02", "file": None}


def test_what_has_no_rows_or_no_json_is_refused_with_the_reason() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for result, said in (
        (None, "run() returned None"), ("text", "an object of type str"), ({"a": 1}, "type dict"),
        ([object()], "row 0 of what run() returned cannot be written as JSON"),
        ([{"a": loop}], "row 0"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns named 'a'"),
        ([list(range(3_000))], "a row with 3000 fields"),
    ):
        with pytest.raises(RowsError) as caught:
            lines(result)
        assert said in str(caught.value)
