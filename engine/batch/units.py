"""What is scored: units, and the ranges of mini-batches that leases and commits speak of.

A *unit* is a file or a part of one. A *mini-batch* is an index into the manifest, the same on
every run and every resume. A *range* is a run of whole mini-batches, or some items of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple


class Unit(NamedTuple):
    """A file of the input, or a part of one; a tuple, for millions of them are made.

    Attributes:
        path: Relative to the input's root, with `/`; bytes that are no UTF-8 are surrogates.
        size_bytes: Of the whole file.
        version: Of the file when it was listed: its mtime in ns, or an object's ETag.
        part: For a part of a file, `("bytes", start, stop)` or `("rows", start, stop)`.
        rows: Where `run()` takes tables: the rows [first, stop) of the file, from 0; a CSV's
            header is none. The items are then the rows. A third number says how many rows of
            the part come before.
    """

    path: str
    size_bytes: int
    version: int | str
    part: tuple[str, int, int] | None = None
    rows: tuple[int, ...] | None = None

    @property
    def items(self) -> int:
        """How many items it is: its rows, or the one file."""
        return 1 if self.rows is None else self.rows[1] - self.rows[0]

    def narrow(self, start: int, stop: int) -> Unit:
        """Return the unit with only some of its items; its `part` stays, for it is what is read."""
        if self.rows is None or (start, stop) == (0, self.items):
            return self
        first, before = self.rows[0], self.rows[2] if len(self.rows) > 2 else 0
        return self._replace(rows=(first + start, first + stop, before + start))

    def describe(self) -> dict[str, Any]:
        """Return the item as `errors.jsonl` names it."""
        if self.rows is not None:
            return {"item": self.path, "rows": list(self.rows[:2])}
        if self.part is None:
            return {"item": self.path}
        kind, start, stop = self.part
        return {"item": self.path, kind: [start, stop]}


#: `Unit(*fields)` from a tuple of all five, in a third of the time.
_unit = partial(tuple.__new__, Unit)


def units_to_json(units: list[Unit]) -> list[Any] | dict[str, Any]:
    """Return the units as JSON can keep them: whole files, the common case, by column."""
    if any(unit.part is not None or unit.rows is not None for unit in units):
        return list(units)
    return {"files": [[unit[column] for unit in units] for column in range(3)]}


def units_from_json(data: list[Any] | dict[str, Any]) -> list[Unit]:
    """Return the units that `units_to_json` described."""
    if isinstance(data, dict):   # there may be millions
        return list(map(_unit, zip(*data["files"], repeat(None), repeat(None), strict=False)))
    return [
        Unit(*fields[:3], *(value and tuple(value) for value in fields[3:])) for fields in data
    ]


class Piece(NamedTuple):
    """Some items of a unit, [start, stop), counted from the unit's first."""

    unit: Unit
    start: int
    stop: int


def items_of(units: Iterable[Unit]) -> int:
    """Return how many items the units are together."""
    return sum([1 if unit.rows is None else unit.items for unit in units])


def pieces_of(units: Iterable[Unit], items: tuple[int, int] | None = None) -> list[Piece]:
    """Return the units that hold the items [start, stop) of them all, or all; in order."""
    found, first = [], 0
    for unit in units:
        count = unit.items
        start, stop = items or (0, first + count)
        start, stop = max(0, start - first), min(count, stop - first)
        if start < stop:
            found.append(Piece(unit, start, stop))
        first += count
    return found


def narrowed(units: Iterable[Unit], items: tuple[int, int]) -> list[Unit]:
    """Return the units with only the items [start, stop) of them all."""
    return [one.unit.narrow(one.start, one.stop) for one in pieces_of(units, items)]


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """The mini-batches [first, stop), or the items [items[0], items[1]) of the one mini-batch.

    Attributes:
        first: The first mini-batch.
        stop: One past the last; `first + 1` where `items` is given.
        items: The items of the mini-batch `first`, by index, or None for whole mini-batches.
    """

    first: int
    stop: int
    items: tuple[int, int] | None = None

    @property
    def is_part(self) -> bool:
        """Whether the range is some items of one mini-batch."""
        return self.items is not None

    @property
    def order_key(self) -> tuple[int, int]:
        """Where its rows stand in the output."""
        return self.first, self.items[0] if self.items else 0

    def to_json(self) -> list[int]:
        """Return [first, stop] or [first, stop, item, item]."""
        return [self.first, self.stop, *(self.items or ())]

    @classmethod
    def from_json(cls, data: list[int]) -> Range:
        """Return the range that `to_json` described."""
        return cls(data[0], data[1], (data[2], data[3]) if len(data) > 2 else None)
