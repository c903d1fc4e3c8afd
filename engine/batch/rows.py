r"""What `run()` returned, as rows of `predictions.csv`.

Azure's `append_row`: no header; a DataFrame space-separated; a str as its own line, as it is. Ours,
where Azure is silent: a list, tuple or array is a row like a DataFrame's, a dict a line of JSON,
anything else its `str`; a value that would break the row (a newline in a str; a space, quote or
newline in a field) is quoted as CSV quotes.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any

SEPARATOR = " "


class RowsError(TypeError):
    """Raised when `run()` returned what has no rows; the message names its type."""


def to_rows(result: Any, *, is_text_wanted: bool) -> tuple[int, bytes]:
    """Return how many rows the result has, and their text (empty if not wanted).

    Args:
        result: What `run()` returned: a list, tuple, DataFrame, Series, array, Arrow table or
            iterator.
        is_text_wanted: False for `summary_only`, where rows only count.

    Raises:
        RowsError: The result is None, or of another type.
    """
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and isinstance(result, (arrow.Table, arrow.RecordBatch)):
        if not is_text_wanted:
            return result.num_rows, b""
        result = result.to_pandas()
    elif arrow is not None and isinstance(result, (arrow.Array, arrow.ChunkedArray)):
        result = result.to_pylist()
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(result, pandas.DataFrame):
        return len(result), _frame_text(result) if is_text_wanted else b""
    if pandas is not None and isinstance(result, pandas.Series):
        result = result.tolist()
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(result, numpy.ndarray) and result.ndim > 0:
        # tolist() is fast, but gives a float32 digits that it does not have.
        is_exact = result.dtype.kind in "iub" or result.dtype == float
        result = result.tolist() if is_exact and result.ndim == 1 else list(result)
    if not isinstance(result, (list, tuple, Iterator)):
        raise no_rows(result)
    return _item_rows(result, is_text_wanted)


def no_rows(result: Any) -> RowsError:
    """Return the error of a result that has no rows."""
    return RowsError(
        f"run() returned {_describe(result)}; it has to return a list or a DataFrame, with a "
        "row for each file that succeeded"
    )


def _frame_text(frame: Any) -> bytes:
    text: str = frame.to_csv(sep=SEPARATOR, header=False, index=False, lineterminator="\n")
    return text.encode("utf-8", "surrogateescape")


def _item_rows(items: Iterable[Any], is_text_wanted: bool) -> tuple[int, bytes]:
    if not is_text_wanted:
        return sum(1 for _ in items), b""
    if isinstance(items, list):
        text = _plain_lines(items) or _number_lines(items)
        if text:
            return len(items), text
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=SEPARATOR, lineterminator="\n")
    count = 0
    for item in items:
        count += 1
        if isinstance(item, str):
            out.write(_line(item))
        elif (values := _values(item)) is not None:
            writer.writerow([_field(value) for value in values])
        elif isinstance(item, dict):
            out.write(_line(json.dumps(item, ensure_ascii=False, default=str)))
        else:
            out.write(_line(str(item)))
    return count, out.getvalue().encode("utf-8", "surrogateescape")


def _plain_lines(items: list[Any]) -> bytes | None:
    """Return the text of rows that are all plain lines, by far the most common, or None."""
    try:
        text = "\n".join(items)
    except TypeError:
        return None
    if text.count("\n") != max(0, len(items) - 1) or "\r" in text:
        return None
    return (text + "\n").encode("utf-8", "surrogateescape") if items else b""


def _number_lines(items: list[Any]) -> bytes | None:
    """Return the text of rows that are all plain numbers, as models predict them, or None."""
    if not set(map(type, items)) <= {int, float, bool}:
        return None
    return "".join(f"{item}\n" for item in items).encode()


def _line(text: str) -> str:
    if "\n" in text or "\r" in text:
        text = '"' + text.replace('"', '""') + '"'
    return text + "\n"


def _values(item: Any) -> Sequence[Any] | None:
    """Return the fields of an item that is a row of its own, or None."""
    if isinstance(item, (list, tuple)):
        return item
    if getattr(item, "ndim", 0) and hasattr(item, "tolist"):   # an array's `str` leaves out a part
        return list(item) if item.ndim == 1 else item.tolist()
    return None


def _field(value: Any) -> Any:
    is_missing = (
        value is None or (isinstance(value, Real) and value != value)
        or type(value).__name__ in ("NaTType", "NAType")   # pandas', which may not be imported
    )
    return "" if is_missing else value


def _describe(result: Any) -> str:
    return "None" if result is None else f"an object of type {type(result).__name__}"
