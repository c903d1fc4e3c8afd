"""What `run()` is given for the units of a mini-batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from inferay.engine.batch.formats.sources import Source
from inferay.engine.batch.units import Piece, Unit

if TYPE_CHECKING:
    from inferay.engine.batch.split.read import TableReader
    from inferay.engine.batch.split.tables import Table


class Inputs:
    """Turns units into the argument of `run()`.

    Attributes:
        root: What the units' paths are relative to.
        table: `pandas` or `pyarrow` where `run()` takes tables, "" where it takes paths.
        types_of: Returns the types of a file that was cut, by its path.
    """

    def __init__(
        self, root: str, table: str = "", types_of: Callable[[str], Any] = lambda path: None
    ) -> None:
        self.root = root
        self.table = table
        self._types_of = types_of
        self._reader: TableReader | None = None

    def paths(self, units: Iterable[Unit]) -> list[str]:
        """Return the units' files as paths of this machine, in order."""
        root = self.root
        return [f"{root}/{unit.path}" for unit in units]

    def tables(self, pieces: Iterable[Piece]) -> Iterator[tuple[Table, list[Source]]]:
        """Yield the pieces' rows as tables, in order, each with the files that it is from.

        Pieces with equal columns and types make one table. Others stand alone, so that a row has
        the same values whatever it shares a mini-batch with.
        """
        if self._reader is None:   # numpy and pandas are loaded only where tables are read
            from inferay.engine.batch.split.read import TableReader
            from inferay.engine.batch.split.sources import Sources

            self._reader = TableReader(Sources(self.root), self.table, self._types_of)
        held: list[Table] = []
        sources: list[Source] = []
        for piece in pieces:
            table = self._reader.read(piece)
            if held and not _fit(held[0], table):
                yield _joined(held), sources
                held, sources = [], []
            held.append(table)
            first = piece.unit.rows[0] + piece.start if piece.unit.rows else 0
            sources.append(Source(piece.unit.path, first, piece.stop - piece.start))
        if held:
            yield _joined(held), sources

    def close(self) -> None:
        """Let go of what is open."""
        if self._reader is not None:
            self._reader.close()


def _fit(one: Any, other: Any) -> bool:
    if hasattr(one, "schema"):
        return bool(one.schema.equals(other.schema))
    has_index = any(table.index.names != [None] for table in (one, other))
    return not has_index and one.dtypes.equals(other.dtypes)


def _joined(tables: list[Any]) -> Any:
    if len(tables) == 1:
        return tables[0]
    if hasattr(tables[0], "schema"):
        import pyarrow

        return pyarrow.concat_tables(tables)
    import pandas

    return pandas.concat(tables, ignore_index=True)
