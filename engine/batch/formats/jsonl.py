r"""JSONL: a line of JSON per row, `{"row": …, its fields, "file": …}`.

NaN, infinities and missing values are null; times are ISO 8601, bytes base64, decimals and UUIDs
text. A name or text that is no UTF-8 keeps its bytes as `\udcNN`, as `json.loads` reads them back.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from inferay.engine.batch.formats.encoding import Encoded
from inferay.engine.batch.formats.results import (
    column_names,
    fields_of,
    is_arrow,
    is_frame,
    items_of,
    series_name,
)
from inferay.engine.batch.formats.sources import FILE, ROW, Source, places
from inferay.engine.batch.rows import RowsError


class JsonEncoder:
    """Turns results into lines of JSON."""

    names_sources = True

    def encode(self, result: Any, sources: Sequence[Source]) -> Encoded:
        """See `Encoder.encode`."""
        fields = list(_rows(result))
        files, indexes = places(sources, len(fields))
        lines = [
            _line(number, {ROW: index, **row} if FILE in row else {ROW: index, **row, FILE: file})
            for number, (row, index, file) in enumerate(zip(fields, indexes, files, strict=True))
        ]
        return Encoded(len(lines), b"".join(lines))

    def write(self, encoded: Encoded) -> bytes:
        """See `Encoder.write`."""
        lines: bytes = encoded.content
        return lines

    def end_run(self) -> bytes:
        """See `Encoder.end_run`."""
        return b""


def _rows(result: Any) -> Iterator[dict[str, Any]]:
    if is_frame(result):
        names = column_names(list(result.columns))
        values = [_values(result.iloc[:, number]) for number in range(len(names))]
        return _zipped(names, values, len(result))
    if is_arrow(result):
        values = [column.to_pylist() for column in result.columns]
        return _zipped(column_names(result.schema.names), values, result.num_rows)
    name = series_name(result)
    if name is not None:
        return ({name: value} for value in _values(result))
    return (fields_of(item) for item in items_of(result))


def _zipped(
    names: list[str], values: list[Iterable[Any]], rows: int
) -> Iterator[dict[str, Any]]:
    if not names:
        return ({} for _ in range(rows))
    return (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))


def _values(series: Any) -> Iterable[Any]:
    if str(series.dtype) in ("float16", "float32"):
        return list(series.to_numpy())   # tolist() gives digits that the value does not have
    found: list[Any] = series.tolist()
    return found


def json_text(value: Any) -> str:
    """Return the value as one line of JSON, as a row's fields are.

    Raises:
        ValueError, TypeError, RecursionError: There is none.
    """
    try:
        return _to_json(value)
    except (ValueError, TypeError, RecursionError):
        return _to_json(_plain(value))


def _line(number: int, row: dict[str, Any]) -> bytes:
    try:
        text = json_text(row)
    except (ValueError, TypeError, RecursionError) as error:
        raise RowsError(
            f"row {number} of what run() returned cannot be written as JSON: {error}"
        ) from None
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(json.loads(text)).encode() + b"\n"


def _plain(value: Any) -> Any:
    """Return the value with null for what JSON has no number for, and text for keys."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (str, int)) or value is None:
        return value
    return _plain(_other(value))


def _other(value: Any) -> Any:
    """Return a value that JSON does not know as one that it does."""
    kind = type(value).__name__
    if kind in ("NaTType", "NAType"):   # pandas', which may not be imported
        return None
    if kind in ("float16", "float32"):
        return float(str(value))
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, (Decimal, UUID, PurePath, datetime.timedelta)) or kind in (
        "datetime64", "timedelta64", "Period", "Interval",
    ):
        return str(value)
    if getattr(value, "ndim", 0):
        return list(value)
    if hasattr(value, "tolist"):   # a NumPy scalar, a tensor
        return value.tolist()
    if hasattr(value, "as_py"):
        return value.as_py()
    raise TypeError(f"it holds an object of type {kind}; return text, numbers, lists or dicts")


_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_other).encode
