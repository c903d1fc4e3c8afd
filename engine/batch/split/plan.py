"""From files to mini-batches of rows: what is counted, cut and grouped before the first lease."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np

from inferay.engine.batch.split.bits import Positions
from inferay.engine.batch.split.formats import Format, format_of, is_hidden
from inferay.engine.batch.split.parquet import open_parquet, parquet_types, row_slices
from inferay.engine.batch.split.records import (
    CHUNK_BYTES,
    iter_records,
    map_in_order,
    scan_threads,
)
from inferay.engine.batch.split.slices import DIALECTS, first_records, read_prefix
from inferay.engine.batch.split.sources import LocalSource, RemoteSource, Sources
from inferay.engine.batch.split.tables import SAMPLE_BYTES, Types, text_table, types_of
from inferay.engine.batch.units import Unit
from inferay.engine.sizes import BatchSize
from inferay.engine.storage.read_errors import ReadError

#: A mini-batch whose size is given in files has at most so many bytes of rows: some 40,000 rows,
#: beside which the call of `run()` costs little, and which a retry can afford to repeat.
SLICE_BYTES = 4_000_000

#: Places of a large file that are sampled for its types.
SAMPLES = 16

@dataclass(frozen=True)
class Limits:
    """What a mini-batch holds at most; None is no limit."""

    units: int | None
    bytes: int | None
    rows: int | None

    @classmethod
    def of(cls, size: BatchSize) -> Limits:
        """Return the limits that a `mini_batch_size` sets."""
        if size.unit == "files":
            return cls(size.limit, SLICE_BYTES, None)
        return cls(None, size.limit, None) if size.unit == "bytes" else cls(None, None, size.limit)


class Slice(NamedTuple):
    """A unit, and what it weighs against the limit in bytes."""

    unit: Unit
    size_bytes: int


@dataclass
class TablePlan:
    """Cuts files into units of rows, and groups those into mini-batches.

    Attributes:
        sources: Opens the files.
        kind: `pandas` or `pyarrow`.
        is_cut: Whether large files are cut.
        limits: Of a mini-batch.
        skips_hidden: Whether hidden files are passed over; one that was named is meant.
        has_images: Whether images are taken too, each as one row.
        types: Of each file that was cut; complete when the units have been taken.
    """

    sources: Sources
    kind: str
    is_cut: bool
    limits: Limits
    skips_hidden: bool = True
    has_images: bool = False
    types: dict[str, Types] = field(default_factory=dict)

    def mini_batches(self, files: Iterable[Unit]) -> Iterator[list[Unit]]:
        """Yield the units of each mini-batch, in the order of the files and their rows.

        Raises:
            InvalidInput: A file is none that has rows.
        """
        with ThreadPoolExecutor(scan_threads(), "inferay-scan") as pool:
            yield from group(self._slices(files, pool), self.limits)

    def _slices(self, files: Iterable[Unit], pool: ThreadPoolExecutor) -> Iterator[Slice]:
        """Yield the slices of all files: small ones many at a time, a large one in parallel."""
        waiting: list[tuple[Unit, Format]] = []

        def small() -> Iterator[Slice]:
            found = map_in_order(pool, lambda one: list(self._cut(*one, None)), waiting)
            yield from chain.from_iterable(found)
            waiting.clear()

        for unit in files:
            if self.skips_hidden and is_hidden(unit.path):
                yield from small()
                yield _nothing_of(unit)
                continue
            form = format_of(unit.path, has_images=self.has_images)
            if form == "image":
                yield from small()
                yield Slice(unit._replace(rows=(0, 1)), unit.size_bytes)
                continue
            if unit.size_bytes <= CHUNK_BYTES or form == "parquet":
                waiting.append((unit, form))
                if len(waiting) == 8 * scan_threads():
                    yield from small()
            else:
                yield from small()
                yield from self._cut(unit, form, pool)
        yield from small()

    def _cut(
        self, unit: Unit, form: Format, pool: ThreadPoolExecutor | None
    ) -> Iterator[Slice]:
        source = self.sources.open(unit)
        try:
            if form == "parquet":
                yield from self._cut_parquet(unit, source)
            else:
                yield from self._cut_text(unit, form, source, pool)
        finally:
            source.close()

    def _cut_parquet(self, unit: Unit, source: LocalSource | RemoteSource) -> Iterator[Slice]:
        with source.open() as file:
            try:
                parquet = open_parquet(file, unit.path)
            except ReadError:   # one failed item: reading it will say why
                yield Slice(unit, unit.size_bytes)
                return
            groups = [
                (one.num_rows, one.total_byte_size)
                for one in map(parquet.metadata.row_group, range(parquet.num_row_groups))
            ]
            limits = self.limits if self.is_cut else Limits(None, None, None)
            slices = list(row_slices(groups, bytes_max=limits.bytes, rows_max=limits.rows))
            if self.kind == "pandas" and len(slices) > 1:
                self.types[unit.path] = parquet_types(parquet)
        if not slices:
            yield _nothing_of(unit)
        for start, stop, size_bytes in slices:
            yield Slice(unit._replace(part=("rows", start, stop), rows=(start, stop)), size_bytes)

    def _cut_text(
        self, unit: Unit, form: Format, source: LocalSource | RemoteSource,
        pool: ThreadPoolExecutor | None,
    ) -> Iterator[Slice]:
        chunks = iter_records(source, DIALECTS[form], pool)
        limits = self.limits if self.is_cut else Limits(None, None, None)
        cuts = text_slices(
            chunks, unit.size_bytes, has_header=form != "jsonl", limits=limits
        )
        spans: list[tuple[int, int]] = []
        for start, stop, first, last in cuts:
            spans.append((start, stop))
            part = ("bytes", start, stop)
            yield Slice(unit._replace(part=part, rows=(first, last)), stop - start)
        if not spans:
            yield _nothing_of(unit)
        if len(spans) > 1:
            # Without types slices are read with their own; that of what is unreadable names it.
            with contextlib.suppress(ValueError):   # ParserError and ArrowInvalid too
                self.types[unit.path] = self._text_types(form, source, spans)

    def _text_types(
        self, form: Format, source: LocalSource | RemoteSource, spans: list[tuple[int, int]]
    ) -> Types:
        size_bytes = spans[-1][1] - spans[0][0]
        prefix = read_prefix(source, form)
        if size_bytes <= SAMPLE_BYTES:
            samples = [source.read(spans[0][0], spans[-1][1])]
        else:
            chosen = [spans[at * (len(spans) - 1) // (SAMPLES - 1)] for at in range(SAMPLES)]
            samples = [
                first_records(source, form, start, stop, SAMPLE_BYTES // SAMPLES)
                for start, stop in sorted(set(chosen))
            ]
        table = text_table(self.kind, form, prefix, b"\n".join(samples), is_sample=True)
        return types_of(table)


def _nothing_of(unit: Unit) -> Slice:
    """Return a unit without rows: the manifest names every file."""
    return Slice(unit._replace(part=("bytes", 0, 0), rows=(0, 0)), 0)


def group(slices: Iterable[Slice], limits: Limits) -> Iterator[list[Unit]]:
    """Yield mini-batches within the limits; a slice that is larger alone stands alone."""
    units: list[Unit] = []
    size_bytes = rows = 0
    for unit, weight in slices:
        is_over = (
            (limits.units is not None and len(units) + 1 > limits.units)
            or (limits.bytes is not None and size_bytes + weight > limits.bytes)
            or (limits.rows is not None and rows + unit.items > limits.rows)
        )
        if units and is_over:
            yield units
            units, size_bytes, rows = [], 0, 0
        units.append(unit)
        size_bytes += weight
        rows += unit.items
    if units:
        yield units


def text_slices(
    chunks: Iterable[Positions], size_bytes: int, *, has_header: bool, limits: Limits
) -> Iterator[tuple[int, int, int, int]]:
    """Yield the bytes [start, stop) and the rows [first, last) of each slice of a text file.

    Args:
        chunks: Where its records begin.
        size_bytes: Of the file.
        has_header: Whether the first record is none of the rows.
        limits: A slice ends at the first record that begins `limits.bytes` after its own.
    """
    rows = 0
    begun: tuple[int, int] | None = None   # first byte and row of the slice in hand
    for starts in chunks:
        if has_header and len(starts):
            starts, has_header = starts[1:], False
        at = 0 if begun is None else _next_cut(starts, begun, rows, limits)
        while at < len(starts):
            if begun is not None:
                yield begun[0], int(starts[at]), begun[1], rows + at
            begun = int(starts[at]), rows + at
            at = _next_cut(starts, begun, rows, limits)
        rows += len(starts)
    if begun is not None:
        yield begun[0], size_bytes, begun[1], rows


def _next_cut(
    starts: Positions, begun: tuple[int, int], rows: int, limits: Limits
) -> int:
    """Return which of the starts ends the slice in hand; past the last one if none does."""
    cut = len(starts)
    if limits.bytes is not None:
        cut = min(cut, int(np.searchsorted(starts, begun[0] + limits.bytes)))
    if limits.rows is not None:
        cut = min(cut, begun[1] + limits.rows - rows)
    return cut
