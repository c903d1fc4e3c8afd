"""What is scored: units, and the ranges of mini-batches that leases and commits speak of.

A *unit* is a file or a part of one. A *mini-batch* is an index into the manifest, the same on
every run and every resume. A *range* is a run of whole mini-batches, or some items of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Unit(NamedTuple):
    """A file of the input, or a part of one; a tuple, for millions of them are made.

    Attributes:
        path: Relative to the input's root, with `/`; bytes that are no UTF-8 are surrogates.
        size_bytes: Of the whole file.
        version: Of the file when it was listed: its mtime in ns, or an object's ETag.
        part: For a part of a file, `("bytes", start, stop)` or `("rows", start, stop)`.
    """

    path: str
    size_bytes: int
    version: int | str
    part: tuple[str, int, int] | None = None

    def to_json(self) -> list[Any]:
        """Return the unit as the manifest keeps it."""
        return [*self[:3]] if self.part is None else [*self]

    @classmethod
    def from_json(cls, data: list[Any]) -> Unit:
        """Return the unit that `to_json` described."""
        path, size_bytes, version, *part = data
        return cls(path, size_bytes, version, tuple(part[0]) if part else None)

    def describe(self) -> dict[str, Any]:
        """Return the item as `errors.jsonl` names it."""
        if self.part is None:
            return {"item": self.path}
        kind, start, stop = self.part
        return {"item": self.path, kind: [start, stop]}


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
