"""Where the records of CSV and JSON Lines begin: many chunks of a file at once, then put in order.

The rule is that of pandas' C parser. A record ends at a newline (LF, CRLF or CR; for JSON Lines
LF alone) outside quotes. A quote opens a field only where a field begins, after a delimiter or a
newline; elsewhere it is text. Inside, a doubled quote is text. Lines that are empty or blank are
no records.

Whether a chunk begins inside quotes depends on all before it. Each chunk is therefore scanned for
both cases, by the parity of the quotes before each newline; that is right where every quote opens
and closes as CSV says. Where one does not, the chunk is walked quote by quote once its beginning
is known.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from inferay.engine.batch.split import bits
from inferay.engine.batch.split.bits import Mask, Positions
from inferay.errors import InvalidInput

#: Bytes that are scanned at once: small enough for the cache and for memory (about 4 times as
#: much for each thread), large enough that a chunk's own cost vanishes.
CHUNK_BYTES = 2 << 20

#: Chunks begin after a byte that means the same in either case; it is looked for this far.
BORDER_BYTES_MAX = 1 << 20

#: Threads that scan; numpy and reads let go of the interpreter.
SCAN_THREADS_MAX = 8

BOM = b"\xef\xbb\xbf"
_LF, _CR, _QUOTE, _SPACE, _TAB = b"\n\r\" \t"

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Source(Protocol):
    """A file that can be read in ranges, by several threads."""

    @property
    def size_bytes(self) -> int:
        """The size of the whole file."""

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop), fewer at the end."""


@dataclass(frozen=True)
class Dialect:
    """What the cutting needs to know of a text format.

    Attributes:
        delimiter: The byte between fields, or -1 where there are no quotes to look for.
    """

    delimiter: int

    @property
    def has_quotes(self) -> bool:
        """Whether newlines can stand inside quotes."""
        return self.delimiter >= 0

    @property
    def blanks(self) -> bytes:
        """Which bytes are blank at the start of a line."""
        return bytes(byte for byte in (_SPACE, _TAB) if byte != self.delimiter)

    @property
    def unclear(self) -> bytes:
        """After which bytes no chunk begins: what follows could belong to them."""
        return b"\"\r \t" if self.has_quotes else b" \t"


CSV = Dialect(ord(","))
TSV = Dialect(ord("\t"))
LINES = Dialect(-1)


@dataclass(frozen=True)
class Scan:
    """What one chunk has, in two cases: [0] it begins outside quotes, [1] inside.

    Attributes:
        data: The chunk, with one byte before it and one after.
        starts: Where records begin in `data`, or None where the parity of quotes is not enough.
        is_odd: Whether it has an odd number of quotes.
    """

    data: bytes
    starts: tuple[Positions | None, Positions | None]
    is_odd: bool


def scan(data: bytes, dialect: Dialect) -> Scan:
    """Scan a chunk that has one byte before it and one after, a newline where there is none."""
    array = np.frombuffer(data, np.uint8)
    lines = _line_starts(data, array, dialect)
    quotes = array == _QUOTE
    quotes[[0, -1]] = False
    if not dialect.has_quotes or not quotes.any():
        return Scan(data, (bits.positions(lines), np.zeros(0, np.int64)), False)
    edges = array == dialect.delimiter
    for byte in (_LF, _CR, _QUOTE):
        edges |= array == byte
    marks, edge = bits.pack(quotes), bits.pack(edges)
    inside = bits.prefix_parity(marks)
    before, after = bits.later(edge), bits.earlier(edge)
    opening, closing = marks & inside, marks & ~inside
    is_regular = (
        not ((opening & ~before) | (closing & ~after)).any(),
        not ((closing & ~before) | (opening & ~after)).any(),
    )
    within = bits.later(inside)
    cases = (lines & ~within, lines & within)
    starts = tuple(
        bits.positions(case) if regular else None
        for case, regular in zip(cases, is_regular, strict=True)
    )
    return Scan(data, (starts[0], starts[1]), bits.is_odd(inside))


def _line_starts(data: bytes, array: NDArray[np.uint8], dialect: Dialect) -> Mask:
    """Return where the lines begin that have more than blanks, quoted or not."""
    ends = stops = bits.pack(array == _LF)
    returns = bits.pack(array == _CR)
    if returns.any():
        stops = ends | returns
        if dialect.has_quotes:
            ends = ends | (returns & ~bits.earlier(ends))
    starts = bits.later(ends) & ~stops
    starts = bits.first(starts, len(data) - 1)
    if blank := [at for byte in dialect.blanks for at in _starts_with(array, starts, byte)]:
        lines = re.compile(b"[%s]*[\r\n]" % dialect.blanks)
        starts = bits.without(starts, [at for at in blank if lines.match(data, at)])
    return starts


def _starts_with(array: NDArray[np.uint8], starts: Mask, byte: int) -> list[int]:
    found = starts & bits.pack(array == byte)
    return bits.positions(found).tolist() if found.any() else []


def record_starts(found: Scan, is_inside: bool, dialect: Dialect) -> tuple[Positions, bool]:
    """Return where records begin in `found.data`, and whether the chunk ends inside quotes."""
    starts = found.starts[is_inside]
    if starts is not None:
        return starts, is_inside ^ found.is_odd
    array = np.frombuffer(found.data, np.uint8)
    lines = bits.positions(_line_starts(found.data, array, dialect))
    toggles = np.array(list(_toggles(found.data, is_inside, dialect)), np.int64)
    parity = np.searchsorted(toggles, lines) & 1
    return lines[parity == is_inside], is_inside ^ bool(len(toggles) & 1)


def _toggles(data: bytes, is_inside: bool, dialect: Dialect) -> Iterator[int]:
    """Yield the quotes that open or close a field, as pandas' parser takes them."""
    opens_after = (dialect.delimiter, _LF, _CR)
    at = data.find(b'"', 1, len(data) - 1)
    while at >= 0:
        if is_inside and data[at + 1] == _QUOTE:
            at += 1
        elif is_inside or data[at - 1] in opens_after:
            is_inside = not is_inside
            yield at
        at = data.find(b'"', at + 1, len(data) - 1)


def iter_records(
    source: Source, dialect: Dialect, pool: ThreadPoolExecutor | None = None
) -> Iterator[Positions]:
    """Yield, chunk by chunk, where the records of a file begin: its header's too.

    Raises:
        InvalidInput: It has a run of quotes or blanks that is longer than any sensible one.
    """
    origin = len(BOM) if source.read(0, len(BOM)) == BOM else 0
    nears = range(origin, source.size_bytes, CHUNK_BYTES)

    def scan_at(near: int) -> tuple[int, Scan]:
        start, data = _read_chunk(source, near, origin, dialect)
        return start, scan(data, dialect)

    is_inside = False
    scans = map(scan_at, nears) if pool is None else map_in_order(pool, scan_at, nears)
    for start, found in scans:
        starts, is_inside = record_starts(found, is_inside, dialect)
        yield starts + (start - 1)


def _read_chunk(source: Source, near: int, origin: int, dialect: Dialect) -> tuple[int, bytes]:
    """Return a chunk's first byte, and its text with a byte before and one after.

    It begins, and ends, at the first border from `near` and from the next chunk's `near`.
    """
    is_first = near == origin
    text = source.read(near - (not is_first), near + CHUNK_BYTES + 64)
    text = b"\n" + text if is_first else text
    while (stop := _border(text, 1 + CHUNK_BYTES, dialect)) is None:
        more = source.read(near - 1 + len(text), near - 1 + 2 * len(text))
        if not more:
            stop = len(text)
            break
        if len(text) > CHUNK_BYTES + BORDER_BYTES_MAX:
            raise InvalidInput(
                f"more than {BORDER_BYTES_MAX} bytes from byte {near + CHUNK_BYTES} on are "
                "nothing but quotes or blanks: this is no CSV or JSON Lines file"
            )
        text += more
    start = 1 if is_first else _border(text, 1, dialect) or stop
    return near - 1 + start, text[start - 1 : stop] + (text[stop : stop + 1] or b"\n")


def _border(text: bytes, at: int, dialect: Dialect) -> int | None:
    """Return the first position from `at` on whose byte before is clear, if any."""
    while at < len(text) and text[at - 1] in dialect.unclear:
        at += 1
    return at if at < len(text) else None


def scan_threads() -> int:
    """Return how many threads scan on this machine."""
    return min(SCAN_THREADS_MAX, os.cpu_count() or 1)


def map_in_order(
    pool: ThreadPoolExecutor, work: Callable[[_In], _Out], values: Iterable[_In]
) -> Iterator[_Out]:
    """Yield the results in order, a few ahead of the one that is asked for."""
    ahead: deque[Future[_Out]] = deque()
    try:
        for value in values:
            ahead.append(pool.submit(work, value))
            if len(ahead) > 2 * scan_threads():
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for left in ahead:
            left.cancel()
