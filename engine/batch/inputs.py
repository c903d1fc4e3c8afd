"""What `run()` is given for the units of a mini-batch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferay.engine.batch.formats.sources import Source
from inferay.engine.batch.units import Piece, Unit
from inferay.engine.storage import Access, is_remote
from inferay.engine.storage.read_errors import ReadError, changed

if TYPE_CHECKING:
    from inferay.engine.batch.split.read import TableReader
    from inferay.engine.batch.split.tables import Table


class Inputs:
    """Turns units into the argument of `run()`.

    Files of this machine are used where they are. Remote ones are fetched into a scratch folder,
    ahead of the scoring where they are told of early enough.

    Attributes:
        root: What the units' paths are relative to.
        table: `pandas` or `pyarrow` where `run()` takes tables, "" where it takes paths.
        types_of: Returns the types of a file that was cut, by its path.
        access: How remote files are reached.
        scratch: Folder that remote files are fetched into; None: only tables are read.
        column_types: The dtypes of columns that are read from text, where a model declares them.
        fetch_s: Seconds that `fetch` has blocked so far.
    """

    def __init__(
        self, root: str, table: str = "", types_of: Callable[[str], Any] = lambda path: None,
        *, access: Access | None = None, scratch: Path | None = None,
        column_types: Mapping[str, str] | None = None,
    ) -> None:
        self.root = root
        self.table = table
        self.fetch_s = 0.0
        self._types_of = types_of
        self._access = access or Access()
        self._column_types = column_types
        self._reader: TableReader | None = None
        self._prefetcher = None
        if is_remote(root) and not table and scratch is not None:
            from inferay.engine.batch.prefetch import Prefetcher
            from inferay.engine.storage.remote import open_remote

            self._prefetcher = Prefetcher(open_remote(root, self._access), scratch)

    @property
    def wants_more(self) -> bool:
        """Whether files that are scored later should be named to `prefetch` now."""
        return self._prefetcher is not None and not self._prefetcher.is_far_ahead

    def prefetch(self, units: Iterable[Unit]) -> None:
        """Say that these files are scored after those named before; does not block."""
        if self._prefetcher is not None:
            self._prefetcher.prefetch(units)

    def fetch(self, units: Sequence[Unit]) -> None:
        """Have the files on this machine; blocks until they are.

        Raises:
            ReadError: One cannot be read, or is not what was listed.
            InferayError: Nothing there can be read.
            OSError: The scratch folder's disk is full.
        """
        if self._prefetcher is not None:
            began_s = time.monotonic()
            try:
                self._prefetcher.take(units)
            finally:
                self.fetch_s += time.monotonic() - began_s

    def release(self, units: Iterable[Unit]) -> None:
        """Say that these files are not needed any more, or were named in vain."""
        if self._prefetcher is not None:
            self._prefetcher.release(units)

    def paths(self, units: Sequence[Unit]) -> list[str]:
        """Return the units' files as paths of this machine, in order.

        Raises:
            ReadError: A file is not what was listed.
        """
        if self._prefetcher is not None:
            return self._prefetcher.take(units)
        root = self.root
        paths = [f"{root}/{unit.path}" for unit in units]
        for path, unit in zip(paths, units, strict=True):
            try:
                found = os.stat(path)
            except OSError as error:
                code = "InputMissing" if isinstance(error, FileNotFoundError) else "InputUnreadable"
                raise ReadError(f"cannot read {path}: {error.strerror}", code=code) from error
            if found.st_size != unit.size_bytes:
                raise changed(path, f"{found.st_size} bytes instead of {unit.size_bytes}")
            if found.st_mtime_ns != unit.version:
                raise changed(path, "it was written to")
        return paths

    def tables(self, pieces: Iterable[Piece]) -> Iterator[tuple[Table, list[Source]]]:
        """Yield the pieces' rows as tables, in order, each with the files that it is from.

        Pieces with equal columns and types make one table. Others stand alone, and so do those
        with an index of their own: a row has the same values whatever shares its mini-batch.
        """
        if self._reader is None:   # numpy and pandas are loaded only where tables are read
            from inferay.engine.batch.split.read import TableReader
            from inferay.engine.batch.split.sources import Sources

            self._reader = TableReader(
                Sources(self.root, self._access), self.table, self._types_of, self._column_types
            )
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
        """Let go of what is open; fetch no more."""
        if self._reader is not None:
            self._reader.close()
        if self._prefetcher is not None:
            self._prefetcher.close()


def _fit(one: Any, other: Any) -> bool:
    if not hasattr(one, "columns") or not hasattr(other, "columns"):
        return False   # an image is scored alone
    if hasattr(one, "schema"):
        return bool(one.schema.equals(other.schema))
    from inferay.engine.batch.split.tables import has_index

    return not has_index(one) and not has_index(other) and one.dtypes.equals(other.dtypes)


def _joined(tables: list[Any]) -> Any:
    if len(tables) == 1:
        return tables[0]
    if hasattr(tables[0], "schema"):
        import pyarrow

        return pyarrow.concat_tables(tables)
    import pandas

    return pandas.concat(tables, ignore_index=True)
