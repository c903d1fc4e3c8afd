"""Parquet's rows in a segment: Arrow IPC streams.

A run of mini-batches is one stream, or several, where the columns change within it. Rows of small
mini-batches are gathered into batches.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any
from uuid import UUID

import pyarrow as pa

from inferay.engine.batch.formats.arrow_types import canonical
from inferay.engine.batch.formats.columns import Type
from inferay.engine.batch.formats.encoding import Encoded
from inferay.engine.batch.formats.results import (
    PREDICTION,
    column_names,
    fields_of,
    is_array,
    is_arrow,
    is_frame,
    is_row,
    items_of,
    series_name,
)
from inferay.engine.batch.formats.sources import FILE, ROW, Source, places, valid_text
from inferay.engine.batch.rows import RowsError

#: Rows are gathered up to so many bytes before they are written.
BATCH_BYTES = 1 << 20


class ParquetEncoder:
    """Turns results into record batches."""

    names_sources = True

    def __init__(self) -> None:
        self._sink = Sink()
        self._writer: Any = None
        self._schema: pa.Schema | None = None
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0

    def encode(self, result: Any, sources: Sequence[Source]) -> Encoded:
        """See `Encoder.encode`."""
        rows, found = _arrays(result)
        files, indexes = places(sources, rows)
        columns: dict[str, tuple[pa.Array, Type]] = {}
        if ROW not in found:
            columns[ROW] = pa.array(indexes, pa.int64()), "int64"
        for name, array in found.items():
            try:
                columns[name] = canonical(array)
            except (pa.ArrowException, ValueError) as error:
                raise _refused(name, error) from None
        if FILE not in found:
            columns[FILE] = _text_array(list(files)), "string"
        kinds = tuple((name, kind if rows else "null") for name, (_, kind) in columns.items())
        arrays = [array for array, _ in columns.values()]
        batch = pa.RecordBatch.from_arrays(arrays, list(columns)) if rows else None
        return Encoded(rows, batch, kinds)

    def write(self, encoded: Encoded) -> bytes:
        """See `Encoder.write`."""
        batch = encoded.content
        if batch is None:
            return b""
        if batch.schema != self._schema:
            self._end_stream()
            self._schema = batch.schema
        self._held.append(batch)
        self._held_bytes += batch.nbytes
        if self._held_bytes >= BATCH_BYTES:
            self._write_held()
        return self._sink.take()

    def end_run(self) -> bytes:
        """See `Encoder.end_run`."""
        self._end_stream()
        return self._sink.take()

    def _write_held(self) -> None:
        """Write what is held as one batch: small ones cost more to read than their rows."""
        if self._writer is None:
            self._writer = pa.ipc.new_stream(self._sink, self._schema)
        for batch in pa.Table.from_batches(self._held).combine_chunks().to_batches():
            self._writer.write_batch(batch)
        self._held.clear()
        self._held_bytes = 0

    def _end_stream(self) -> None:
        if self._held:
            self._write_held()
        if self._writer is not None:
            self._writer.close()
        self._writer = self._schema = None


def _arrays(result: Any) -> tuple[int, dict[str, pa.Array]]:
    """Return how many rows the result has, and its columns."""
    if is_frame(result):
        return len(result), _frame_arrays(result)
    if is_arrow(result):
        columns = [_one_array(column) for column in result.columns]
        names = column_names(result.schema.names)
        return result.num_rows, dict(zip(names, columns, strict=True))
    name = series_name(result)
    if name is not None:
        return len(result), {name: _series_array(name, result)}
    if is_array(result) and result.ndim <= 2 and result.dtype.kind in "biuf":
        return len(result), {PREDICTION: _number_array(result)}
    items = items_of(result)
    if not any(map(is_row, items)):
        return len(items), {PREDICTION: _item_array(PREDICTION, items)} if items else {}
    fields = [fields_of(item) for item in items]
    names = list(dict.fromkeys(name for row in fields for name in row))
    column_names(names)
    return len(items), {name: _item_array(name, [r.get(name) for r in fields]) for name in names}


def _frame_arrays(frame: Any) -> dict[str, pa.Array]:
    names = column_names(list(frame.columns))
    return {
        name: _series_array(name, frame.iloc[:, number]) for number, name in enumerate(names)
    }


def _series_array(name: str, series: Any) -> pa.Array:
    """Return a column of a DataFrame; NaN in it is a missing value, as pandas has it."""
    if type(series.dtype).__name__ in ("PeriodDtype", "IntervalDtype"):
        series = series.astype(str).where(series.notna(), None)
    elif type(series.dtype).__name__ == "SparseDtype":
        series = series.sparse.to_dense()
    if series.dtype == object:
        return _item_array(name, series.tolist(), from_pandas=True)
    try:
        return _one_array(pa.array(series, from_pandas=True))
    except UnicodeEncodeError:
        return _item_array(name, series.tolist(), from_pandas=True)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise _refused(name, error) from None


def _item_array(name: str, values: list[Any], *, from_pandas: bool = False) -> pa.Array:
    """Return a column of Python values."""
    try:
        return _one_array(pa.array(values, from_pandas=from_pandas))
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        plain = [_plain(value) for value in values]
        try:
            return _one_array(pa.array(plain, from_pandas=from_pandas))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise _refused(name, error) from None


def _text_array(values: list[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([value and valid_text(value) for value in values], pa.string())


def _number_array(array: Any) -> pa.Array:
    """Return a column of numbers, or of lists of numbers for an array of two dimensions."""
    if array.ndim == 1:
        return pa.array(array)
    flat = pa.array(array.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _plain(value: Any) -> Any:
    """Return a value that Arrow does not take as one that it does, if there is one."""
    if type(value).__name__ in ("NaTType", "NAType"):   # pandas', which may not be imported
        return None
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)) or getattr(value, "ndim", False):
        return [_plain(one) for one in value]
    if isinstance(value, (UUID, PurePath)):
        return valid_text(str(value))
    if type(value).__name__ in ("datetime64", "timedelta64"):
        found = value.item()   # an int for what Python's own types do not hold
        return pa.array(value.reshape(1))[0].as_py() if isinstance(found, int) else found
    if hasattr(value, "tolist") and not hasattr(value, "dtype"):
        return value.tolist()
    if hasattr(value, "detach"):   # a tensor
        return value.tolist()
    return value


def _one_array(array: Any) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _refused(name: str, error: Exception) -> RowsError:
    what = " ".join(str(part) for part in error.args if isinstance(part, str)).splitlines()
    return RowsError(
        f"column '{name}' of what run() returned cannot be written as Parquet: "
        f"{what[0] if what else type(error).__name__}; a column has values of one type"
    )


class Sink(io.RawIOBase):
    """A file whose bytes are taken away as they come."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Keep the bytes."""
        self._parts.append(bytes(data))
        self._size += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        """Return how many bytes were written in all."""
        return self._size

    def take(self) -> bytes:
        """Return the bytes that were written since the last time."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data
