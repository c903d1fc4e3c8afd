"""Reading pieces of files as tables, in a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from inferay.engine.batch.split.bits import Positions
from inferay.engine.batch.split.formats import Format, format_of
from inferay.engine.batch.split.parquet import ParquetRows
from inferay.engine.batch.split.slices import read_prefix, some_records, starts_of
from inferay.engine.batch.split.sources import Sources
from inferay.engine.batch.split.tables import Types, conformed, text_table
from inferay.engine.batch.units import Piece, Unit
from inferay.errors import JobError

if TYPE_CHECKING:
    from inferay.engine.batch.split.tables import Table


class TableReader:
    """Reads one piece after the other; keeps the last file, and a slice that is read again.

    Args:
        sources: Opens the files.
        kind: `pandas` or `pyarrow`.
        types_of: Returns the types of a file that was cut, by its path.
    """

    def __init__(
        self, sources: Sources, kind: str, types_of: Callable[[str], Types | None]
    ) -> None:
        self._sources = sources
        self._kind = kind
        self._types_of = types_of
        self._prefix: tuple[Unit, bytes] | None = None
        self._slice: tuple[Unit, bytes, Positions] | None = None
        self._parquet: tuple[Unit, ParquetRows] | None = None

    def read(self, piece: Piece) -> Table:
        """Return the rows of a piece; its index begins at 0.

        Raises:
            JobError: The file is not what it was when it was listed, or its rows are others.
        """
        form = format_of(piece.unit.path)
        assert form is not None
        assert piece.unit.rows is not None
        types = self._types_of(piece.unit.path)
        if form == "parquet":
            table = self._read_parquet(piece, types)
        else:
            prefix, text = self._text(piece, form)
            table = text_table(self._kind, form, prefix, text, types)
        if len(table) != piece.stop - piece.start:
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

    def _read_parquet(self, piece: Piece, types: Types | None) -> Table:
        whole = piece.unit._replace(part=None, rows=None)
        if self._parquet is None or self._parquet[0] != whole:
            self.close()
            source = self._sources.open(piece.unit)
            try:
                self._parquet = whole, ParquetRows(source.open())
            finally:
                source.close()
        assert piece.unit.rows is not None
        first = piece.unit.rows[0]
        table = self._parquet[1].read(first + piece.start, first + piece.stop)
        return conformed(table.to_pandas(), types) if self._kind == "pandas" else table

    def _text(self, piece: Piece, form: Format) -> tuple[bytes, bytes]:
        unit, (_, start, stop) = piece.unit, piece.unit.part or ("", 0, 0)
        whole = unit._replace(part=None, rows=None)
        before = unit.rows[2] if unit.rows and len(unit.rows) > 2 else None
        is_all = before is None and piece.stop - piece.start == unit.items
        is_kept = self._slice is not None and self._slice[0] == unit and not is_all
        if self._prefix is None or self._prefix[0] != whole or not is_kept:
            source = self._sources.open(unit)
            try:
                if self._prefix is None or self._prefix[0] != whole:
                    self._prefix = whole, read_prefix(source, form)
                text = source.read(start, stop)
            finally:
                source.close()
            if is_all:
                self._slice = None
                return self._prefix[1], text
            self._slice = unit, text, starts_of(text, form)
        assert self._slice is not None
        _, text, starts = self._slice
        first = (before or 0) + piece.start
        return self._prefix[1], some_records(text, starts, first, first + piece.stop - piece.start)
