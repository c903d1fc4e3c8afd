"""The Parquet file, written from the rows in segments in bounded memory.

Row groups end at rows that the rows themselves determine, so that the file's bytes do not depend
on how the rows were divided into mini-batches, or among workers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inferay.engine.batch.formats.arrow_types import canonical, conform, row_bytes, to_arrow
from inferay.engine.batch.formats.columns import Columns, Type
from inferay.engine.batch.formats.parquet import Sink
from inferay.engine.batch.formats.sources import FILE, ROW
from inferay.errors import JobError

#: A row group ends when it has so many rows, or so many bytes in memory.
GROUP_ROWS = 131_072
GROUP_BYTES = 64 << 20

#: Bytes of segments that are read at once.
_READ_BYTES = 1 << 20

#: A file without a single row has these.
_EMPTY: Columns = ((ROW, "int64"), (FILE, "string"))


def parquet_bytes(chunks: Iterator[bytes], columns: Columns) -> Iterator[bytes]:
    """Yield the file, a row group at a time.

    Args:
        chunks: The rows' bytes as `ParquetEncoder` wrote them, in order.
        columns: Of all rows together.
    """
    return parquet_of(stored_batches(chunks, columns), columns)


def parquet_of(batches: Iterator[pa.RecordBatch], columns: Columns) -> Iterator[bytes]:
    """Yield the file of rows that have these columns, a row group at a time."""
    sink = Sink()
    with pq.ParquetWriter(sink, _schema(columns), compression="zstd") as writer:
        for group in _groups(batches):
            writer.write_table(group, row_group_size=max(1, group.num_rows))
            yield sink.take()
    yield sink.take()


def _place(column: tuple[str, Any]) -> int:
    """Return where a column stands: the row first, the file last, whatever came after them."""
    return {ROW: -1, FILE: 1}.get(column[0], 0)


def stored_batches(chunks: Iterator[bytes], columns: Columns) -> Iterator[pa.RecordBatch]:
    """Yield the rows that `ParquetEncoder` wrote, with the columns of all rows."""
    kinds, schema = dict(columns or _EMPTY), _schema(columns)
    file = io.BufferedReader(_Joined(chunks), _READ_BYTES)
    while file.peek(1):
        for batch in pa.ipc.open_stream(file):
            yield _conformed(batch, kinds, schema)


class RowsOf:
    """The rows of a Parquet file, front to back, with the columns of all rows."""

    def __init__(self, file: Any, columns: Columns) -> None:
        self._kinds, self._schema = dict(columns or _EMPTY), _schema(columns)
        self._batches = pq.ParquetFile(file).iter_batches()
        self._rest: pa.RecordBatch | None = None

    def take(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the next so many rows."""
        while rows:
            batch = self._rest or next(self._batches)
            taken = batch.slice(0, rows)
            arrays = [canonical(array)[0] for array in taken.columns]
            taken = pa.RecordBatch.from_arrays(arrays, taken.schema.names)
            yield _conformed(taken, self._kinds, self._schema)
            self._rest = batch.slice(rows) if batch.num_rows > rows else None
            rows -= taken.num_rows


def _schema(columns: Columns) -> pa.Schema:
    ordered = sorted(columns or _EMPTY, key=_place)
    return pa.schema([pa.field(name, to_arrow(kind)) for name, kind in ordered])


def _conformed(batch: pa.RecordBatch, kinds: dict[str, Type], schema: pa.Schema) -> pa.RecordBatch:
    found = dict(zip(batch.schema.names, batch.columns, strict=True))
    arrays = [
        _conform(name, found.get(name, pa.nulls(batch.num_rows)), kinds[name])
        for name in schema.names
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _conform(name: str, array: pa.Array, kind: Type) -> pa.Array:
    try:
        return conform(array, kind)
    except pa.ArrowInvalid as error:   # a time that the finer unit of other rows cannot hold
        raise JobError(
            f"column '{name}': {error}; let run() return one type", code="ColumnTypesDiffer",
            target=name,
        ) from None


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield tables of one chunk per column, cut where rows or bytes are full."""
    parts: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        sizes = None
        start = 0
        while start < batch.num_rows:
            if sizes is None:
                sizes = pc.cumulative_sum(_row_bytes(batch)).to_numpy()
                before = 0
            full = int(sizes.searchsorted(before + GROUP_BYTES - size_bytes)) + 1
            stop = min(batch.num_rows, start + GROUP_ROWS - rows, full)
            parts.append(batch.slice(start, stop - start))
            rows += stop - start
            size_bytes += int(sizes[stop - 1]) - before
            before, start = int(sizes[stop - 1]), stop
            if rows == GROUP_ROWS or size_bytes >= GROUP_BYTES:
                yield _table(parts)
                parts, rows, size_bytes = [], 0, 0
    if parts:
        yield _table(parts)


def _table(parts: list[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(parts).combine_chunks()


def _row_bytes(batch: pa.RecordBatch) -> pa.Array:
    total = pa.repeat(pa.scalar(0, pa.int64()), batch.num_rows)
    for column in batch.columns:
        total = pc.add(total, row_bytes(column))
    return total


class _Joined(io.RawIOBase):
    """Chunks as one file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the chunk in hand goes; 0 at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
