"""The commit records that count, in the output's order, in a few bytes each.

A long job has hundreds of thousands of them. Nearly all are five numbers and a segment's name, so
they are kept as numbers; one that names failures or files, or is a part of a mini-batch, is kept
as it is.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator

from inferay.engine.batch.journal import Record
from inferay.engine.batch.segment import object_name, stem_of
from inferay.engine.batch.units import Range

_INDEX_BITS = 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1

#: Mini-batches, start, stop, rows, items, and which of its worker's objects the segment is.
_NUMBERS = 6


class Commits:
    """An iterable of records, as often as needed; each comes as it was written."""

    def __init__(self, records: Iterable[Record]) -> None:
        """Take the records in the order of their commits; the first of a range wins."""
        self._firsts, self._shape_of = array("I"), array("I")
        self._numbers = array("q")   # per record: the `_NUMBERS` below
        self._shapes: list[Record] = []
        self._shape_numbers: dict[str, int] = {}
        self._whole_records: dict[int, Record] = {}
        self._has_parts = False
        self._take(records)
        self._order = self._sorted()

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, self._order)

    def _take(self, records: Iterable[Record]) -> None:
        done = bytearray()   # a byte per mini-batch
        parts: set[tuple[int, int]] = set()
        for record in records:
            if record["k"] != "commit":
                continue
            taken = Range.from_json(record["r"])
            done.extend(bytes(max(0, taken.stop - len(done))))
            if any(done[taken.first : taken.stop]) or taken.order_key in parts:
                continue
            if taken.is_part:
                parts.add(taken.order_key)
                self._has_parts = True
            else:
                done[taken.first : taken.stop] = b"\1" * (taken.stop - taken.first)
            self._append(taken, record)

    def _append(self, taken: Range, record: Record) -> None:
        shape = {k: v for k, v in record.items() if k not in ("r", "at", "rows", "ok")}
        if taken.is_part or record["failures"] or record["files"]:
            self._whole_records[len(self._firsts)] = record
            shape = {}
        stem, of_worker = stem_of(record["seg"])
        if shape and of_worker is not None:   # else each record would have a name of its own
            shape["seg"] = stem
        number = self._shape_numbers.setdefault(json.dumps(shape), len(self._shapes))
        if number == len(self._shapes):
            self._shapes.append(shape)
        self._firsts.append(taken.first)
        self._shape_of.append(number)
        self._numbers.extend((
            taken.stop - taken.first, *record["at"], record["rows"], record["ok"],
            -1 if of_worker is None else of_worker,
        ))

    def _sorted(self) -> array[int]:
        keys = sorted(first << _INDEX_BITS | at for at, first in enumerate(self._firsts))
        order = array("I", (key & _INDEX_MASK for key in keys))
        if self._has_parts:
            return array("I", sorted(order, key=self._order_key))
        return order

    def _order_key(self, at: int) -> tuple[int, int]:
        return Range.from_json(self._record(at)["r"]).order_key

    def _record(self, at: int) -> Record:
        if at in self._whole_records:
            return self._whole_records[at]
        first = self._firsts[at]
        count, start, stop, rows, items, of_worker = self._numbers[
            at * _NUMBERS : (at + 1) * _NUMBERS
        ]
        shape = self._shapes[self._shape_of[at]]
        if of_worker >= 0:
            shape = {**shape, "seg": object_name(shape["seg"], of_worker)}
        return {
            **shape,
            "r": [first, first + count], "at": [start, stop], "rows": rows, "ok": items,
        }
