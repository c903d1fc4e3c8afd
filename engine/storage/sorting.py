"""More items than fit in memory, in order: sorted in runs outside memory, and merged."""

from __future__ import annotations

import heapq
import marshal
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, TypeVar

T = TypeVar("T", bound="bytes | tuple[Any, ...]")

#: Items that are sorted in memory at once: about 10 MB of names.
ITEMS_IN_MEMORY = 100_000


def in_order(items: Iterable[T], items_in_memory: int = ITEMS_IN_MEMORY) -> Iterator[T]:
    """Yield the items, sorted; they are bytes, or tuples of plain values."""
    held: list[T] = []
    runs: list[IO[bytes]] = []
    for item in items:
        held.append(item)
        if len(held) == items_in_memory:
            runs.append(_spill(sorted(held)))
            held = []
    held.sort()
    yield from heapq.merge(held, *map(_unspill, runs)) if runs else held


def _spill(items: Iterable[Any]) -> IO[bytes]:
    file = tempfile.TemporaryFile(prefix="inferay-names-")  # noqa: SIM115 (_unspill closes it)
    for item in items:
        marshal.dump(item, file)
    file.seek(0)
    return file


def _unspill(file: IO[bytes]) -> Iterator[Any]:
    with file:
        while True:
            try:
                item = marshal.load(file)
            except EOFError:
                return
            yield item
