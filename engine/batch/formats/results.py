"""What `run()` returned, as named fields: the names that JSONL and Parquet share.

A DataFrame or an Arrow table has columns. In a list, a dict has its keys, a named tuple its names,
a list or tuple is a row with fields `prediction_0`, `prediction_1`, …; anything else, an array too,
is the one field `prediction`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from inferay.engine.batch.formats.columns import COLUMNS_MAX
from inferay.engine.batch.rows import RowsError, no_rows

PREDICTION = "prediction"


def is_frame(result: Any) -> bool:
    """Return whether it is a DataFrame."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(result, pandas.DataFrame)


def is_arrow(result: Any) -> bool:
    """Return whether it is an Arrow table or record batch."""
    arrow = sys.modules.get("pyarrow")
    return arrow is not None and isinstance(result, (arrow.Table, arrow.RecordBatch))


def series_name(result: Any) -> str | None:
    """Return the name of a Series' one column, or None if it is no Series."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(result, pandas.Series):
        return None
    return PREDICTION if result.name is None else column_name(result.name)


def is_array(result: Any) -> bool:
    """Return whether it is an array with a first dimension."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(result, numpy.ndarray) and result.ndim > 0


def column_names(names: Sequence[Any]) -> list[str]:
    """Return a table's column names as text.

    Raises:
        RowsError: Two are the same.
    """
    found = [column_name(name) for name in names]
    for name in found:
        if found.count(name) > 1:
            raise RowsError(f"run() returned a table with two columns named '{name}'; rename one")
        if len(found) > COLUMNS_MAX:
            raise RowsError(f"run() returned a table with more than {COLUMNS_MAX} columns")
    return found


def column_name(name: Any) -> str:
    """Return a column's name as text; the levels of a multi-level one are joined by `_`."""
    if isinstance(name, tuple):
        return "_".join(str(level) for level in name if level != "")
    return str(name)


def items_of(result: Any) -> list[Any]:
    """Return the items of a list, tuple, array or iterator.

    Raises:
        RowsError: It is none of these.
    """
    if isinstance(result, list):
        return result
    arrow = sys.modules.get("pyarrow")
    if arrow is not None and isinstance(result, (arrow.Array, arrow.ChunkedArray)):
        found: list[Any] = result.to_pylist()
        return found
    if isinstance(result, (tuple, Iterator)) or is_array(result):
        return list(result)
    raise no_rows(result)


def fields_of(item: Any) -> dict[str, Any]:
    """Return the fields of one item of a list.

    Raises:
        RowsError: It has more fields than a row may have.
    """
    if isinstance(item, dict):
        return {column_name(name): value for name, value in item.items()}
    if isinstance(item, (list, tuple)):
        names = getattr(item, "_fields", None)
        if names is not None:
            return dict(zip(names, item, strict=True))
        if len(item) > COLUMNS_MAX:
            raise RowsError(
                f"run() returned a row with {len(item)} fields, more than {COLUMNS_MAX}; return "
                "an array for a column of lists"
            )
        return {f"{PREDICTION}_{number}": value for number, value in enumerate(item)}
    return {PREDICTION: item}


def is_row(item: Any) -> bool:
    """Return whether an item has fields of its own."""
    return isinstance(item, (dict, list, tuple))
