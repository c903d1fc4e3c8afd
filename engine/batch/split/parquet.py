"""Rows of Parquet files: cut by row groups and inside large ones, and read in order once."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import IO, TYPE_CHECKING

from inferay.engine.batch.split.tables import Types
from inferay.engine.storage.read_errors import ReadError
from inferay.errors import InferayError

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

#: Rows that are decoded at once: a large row group is never held whole.
BATCH_ROWS = 65_536


def row_slices(
    groups: list[tuple[int, int]], *, bytes_max: int | None, rows_max: int | None
) -> Iterator[tuple[int, int, int]]:
    """Yield [start, stop) of the rows of each slice, and its bytes as they lie in memory.

    By bytes, slices are whole row groups, or parts of one: a part has one group to be decoded.

    Args:
        groups: Rows and bytes of each row group.
        bytes_max: Of a slice, about; None for no limit.
        rows_max: Of a slice; every slice but the last has as many.
    """
    if rows_max is not None:
        total, size = sum(rows for rows, _ in groups), sum(size for _, size in groups)
        for start in range(0, total, rows_max):
            stop = min(total, start + rows_max)
            yield start, stop, size * (stop - start) // total
        return
    start = stop = size = 0
    for rows, weight in groups:
        parts = 1 if bytes_max is None else max(1, min(rows, -(-weight // bytes_max)))
        is_over = parts > 1 or (bytes_max is not None and size + weight > bytes_max)
        if stop > start and is_over:   # their size may be 0, for some writers leave it out
            yield start, stop, size
            start, size = stop, 0
        if parts == 1:
            size += weight
        else:
            cuts = [stop + rows * part // parts for part in range(parts + 1)]
            for first, last in pairwise(cuts):
                yield first, last, weight // parts
            start = stop + rows
        stop += rows
    if stop > start:
        yield start, stop, size


def open_parquet(file: IO[bytes], path: str) -> ParquetFile:
    """Open a file, of which the footer is read.

    Args:
        file: Its bytes; closed by whoever opened it.
        path: How it is named in an error.

    Raises:
        ReadError: It is no Parquet file, or a damaged one.
        Exception: What the file itself raises: its storage failed.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        parquet = ParquetFile(file)
        _ = parquet.schema_arrow   # damaged too, perhaps
    except (ValueError, OSError, ArrowException) as error:
        if not is_damage(error):
            raise
        said = str(error).rstrip(".\n")
        raise ReadError(
            f"'{path}' is no Parquet file that can be read: {said}; write it anew, or take it "
            "out of the input", target=path,
        ) from error
    return parquet


def is_damage(error: Exception) -> bool:
    """Return whether the error is about the content of a Parquet file, not about its storage."""
    from pyarrow import ArrowException

    if isinstance(error, OSError):   # the system's have a number, Arrow's have none
        return type(error) is OSError and error.errno is None
    return isinstance(error, (ValueError, ArrowException)) and not isinstance(error, InferayError)


def parquet_types(parquet: ParquetFile) -> Types:
    """Return the pandas types of columns that hold integers or booleans, but not in every row.

    Such a column is a float, or an object, in all of the file, also where no value is missing. Of
    row groups whose footer does not count missing values, the column is read, alone.
    """
    import pyarrow

    schema = parquet.metadata.schema
    leaves = {schema.column(at).path: at for at in range(len(schema))}
    types: list[list[str]] = []
    for field in parquet.schema_arrow:
        is_integer = pyarrow.types.is_integer(field.type)
        if field.name not in leaves or not (is_integer or pyarrow.types.is_boolean(field.type)):
            continue
        if field.nullable and _has_nulls(parquet, leaves[field.name]):
            types.append([field.name, "float64" if is_integer else "object"])
    return types


def _has_nulls(parquet: ParquetFile, leaf: int) -> bool:
    metadata = parquet.metadata
    uncounted = []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(leaf).statistics
        if statistics is None or not statistics.has_null_count:
            uncounted.append(group)
        elif statistics.null_count:
            return True
    return bool(uncounted) and _has_nulls_in(parquet, uncounted, metadata.schema.column(leaf).path)


def _has_nulls_in(parquet: ParquetFile, groups: list[int], path: str) -> bool:
    batches = parquet.iter_batches(
        BATCH_ROWS, row_groups=groups, columns=[path], use_threads=False
    )
    try:
        return any(column.null_count for batch in batches for column in batch.columns)
    except Exception as error:
        if not is_damage(error):
            raise
        return False   # reading the damaged rows says what they have


class ParquetRows:
    """Rows of one open file, decoded once where they are asked for in order."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        self._file = file
        try:
            self._parquet = open_parquet(file, path)
        except BaseException:
            file.close()
            raise
        metadata = self._parquet.metadata
        self._firsts = [0]
        for group in range(metadata.num_row_groups):
            self._firsts.append(self._firsts[-1] + metadata.row_group(group).num_rows)
        self._batches: Iterator[pyarrow.RecordBatch] = iter(())
        self._held: pyarrow.RecordBatch | None = None   # begun, and asked for again
        self._first = self._firsts[-1]   # of `_held`, or of what `_batches` yields next

    @cached_property
    def types(self) -> Types:
        """The pandas types of the whole file, as `parquet_types` returns them."""
        return parquet_types(self._parquet)

    def read(self, start: int, stop: int) -> pyarrow.Table:
        """Return the rows [start, stop); goes on where the last call ended, if that is near."""
        import pyarrow

        group = bisect.bisect_right(self._firsts, start) - 1
        if not self._firsts[group] <= self._first <= start:
            self._begin(group)
        found = []
        while self._first < stop:
            batch = next(self._batches) if self._held is None else self._held
            last = self._first + batch.num_rows
            if last > start:
                low, high = max(start, self._first), min(stop, last)
                found.append(batch.slice(low - self._first, high - low))
            self._held = batch if last > stop else None
            if last > stop:
                break
            self._first = last
        return pyarrow.Table.from_batches(found, self._parquet.schema_arrow)

    def close(self) -> None:
        """Let go of the file."""
        self._batches = iter(())
        self._parquet.close()
        self._file.close()

    def _begin(self, group: int) -> None:
        groups = list(range(group, len(self._firsts) - 1))
        self._batches = self._parquet.iter_batches(
            BATCH_ROWS, row_groups=groups, use_threads=False
        )
        self._first, self._held = self._firsts[group], None
