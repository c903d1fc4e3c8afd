"""Reading pieces of files as tables, in a worker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from inferay.engine.batch.split.bits import Positions
from inferay.engine.batch.split.formats import Format, format_of
from inferay.engine.batch.split.parquet import ParquetRows
from inferay.engine.batch.split.slices import read_prefix, some_records, starts_of
from inferay.engine.batch.split.sources import Sources
from inferay.engine.batch.split.tables import Types, conformed, has_index, text_table, types_of
from inferay.engine.batch.units import Piece, Unit
from inferay.engine.storage.read_errors import ReadError
from inferay.errors import JobError

if TYPE_CHECKING:
    from inferay.engine.batch.split.images import Image
    from inferay.engine.batch.split.tables import Table


class TableReader:
    """Reads one piece after the other; keeps the last file, and a slice that is read again.

    Args:
        sources: Opens the files.
        kind: `pandas` or `pyarrow`.
        types_of: Returns the types of a file that was cut, by its path.
        column_types: The dtypes of columns that are read from text, where they are declared.
    """

    def __init__(
        self, sources: Sources, kind: str, types_of: Callable[[str], Types | None],
        column_types: Mapping[str, str] | None = None,
    ) -> None:
        self._sources = sources
        self._kind = kind
        self._types_of = types_of
        self._column_types = column_types or {}
        self._prefix: tuple[Unit, bytes] | None = None
        self._slice: tuple[Unit, bytes, Positions] | None = None   # without its rows
        self._slice_types: Types | None = None
        self._parquet: tuple[Unit, ParquetRows] | None = None

    def read(self, piece: Piece) -> Table | Image:
        """Return the rows of a piece; its index begins at 0, unless the file has one.

        An image is an array of one row.

        Raises:
            JobError: The file is not what it was when it was listed, or its rows are others.
            ReadError: It is a Parquet file that is damaged.
        """
        form = format_of(piece.unit.path, has_images=True)
        if form == "image":
            return self._read_image(piece.unit)
        types = self._types_of(piece.unit.path)
        if form == "parquet":
            table = self._read_parquet(piece, types)
        else:
            prefix, text = self._text(piece, form)
            if types is None and self._slice is not None:
                types = self._types_of_slice(prefix, form)
            table = text_table(self._kind, form, prefix, text, types, self._column_types)
        if len(table) != piece.stop - piece.start:
            assert piece.unit.rows is not None
            first = piece.unit.rows[0]
            raise JobError(
                f"rows {first + piece.start} to {first + piece.stop} of '{piece.unit.path}' are "
                f"read as {len(table)} rows: its quotes or line ends are not those of a CSV",
                code="RowsUnclear", target=piece.unit.path,
            )
        return table

    def close(self) -> None:
        """Let go of the file that is open; the next call of `read` opens what it needs."""
        if self._parquet is not None:
            self._parquet[1].close()
            self._parquet = None

    def _read_image(self, unit: Unit) -> Image:
        from inferay.engine.batch.split.images import read_image

        source = self._sources.open(unit)
        try:
            with source.open() as file:
                return read_image(file, unit.path)
        finally:
            source.close()

    def _read_parquet(self, piece: Piece, types: Types | None) -> Table:
        whole = piece.unit._replace(part=None, rows=None)
        if self._parquet is None or self._parquet[0] != whole:
            self.close()
            source = self._sources.open(piece.unit)
            try:
                self._parquet = whole, ParquetRows(source.open(), piece.unit.path)
            finally:
                source.close()
        if piece.unit.rows is None:
            raise ReadError(
                f"'{piece.unit.path}' could not be read when its rows were counted, and now it "
                "can; invoke again", target=piece.unit.path,
            )
        first = piece.unit.rows[0]
        table = self._parquet[1].read(first + piece.start, first + piece.stop)
        if self._kind != "pandas":
            return table
        if types is None and not _is_whole(piece):
            types = self._parquet[1].types
        frame = conformed(table.to_pandas(), types)
        # Where numbers are the index, the whole file's need not begin at 0, but a slice's do.
        return frame if has_index(frame) else frame.reset_index(drop=True)

    def _text(self, piece: Piece, form: Format) -> tuple[bytes, bytes]:
        unit, (_, start, stop) = piece.unit, piece.unit.part or ("", 0, 0)
        whole, part = unit._replace(part=None, rows=None), unit._replace(rows=None)
        is_kept = self._slice is not None and self._slice[0] == part and not _is_whole(piece)
        if self._prefix is None or self._prefix[0] != whole or not is_kept:
            source = self._sources.open(unit)
            try:
                if self._prefix is None or self._prefix[0] != whole:
                    self._prefix = whole, read_prefix(source, form)
                text = source.read(start, stop)
            finally:
                source.close()
            self._slice_types = None
            if _is_whole(piece):
                self._slice = None
                return self._prefix[1], text
            self._slice = part, text, starts_of(text, form)
        assert self._slice is not None
        _, text, starts = self._slice
        first = _rows_before(unit) + piece.start
        return self._prefix[1], some_records(text, starts, first, first + piece.stop - piece.start)

    def _types_of_slice(self, prefix: bytes, form: Format) -> Types | None:
        """Return the types of the slice that is read in parts, for they are read with the same."""
        if self._slice_types is None and self._slice is not None:
            # What cannot be read at all is named by reading it.
            with contextlib.suppress(ValueError):   # ParserError and ArrowInvalid too
                text = self._slice[1]
                table = text_table(self._kind, form, prefix, text, is_sample=True)
                self._slice_types = types_of(table)
        return self._slice_types


def _is_whole(piece: Piece) -> bool:
    """Return whether the piece is all that its unit's part of the file holds."""
    is_narrowed = piece.unit.rows is not None and len(piece.unit.rows) > 2
    return not is_narrowed and piece.stop - piece.start == piece.unit.items


def _rows_before(unit: Unit) -> int:
    return unit.rows[2] if unit.rows is not None and len(unit.rows) > 2 else 0
