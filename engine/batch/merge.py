"""The output of a merged redrive: the old rows as they are, and in each gap the new ones."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from inferay.engine.batch import output as outputs
from inferay.engine.batch.formats import format_of
from inferay.engine.batch.formats.columns import Columns, union
from inferay.engine.batch.formats.so_far import columns_of
from inferay.engine.batch.journal import Record
from inferay.engine.batch.output import Published
from inferay.engine.batch.redrive import Plan
from inferay.engine.batch.store import Store
from inferay.errors import JobError


class Merge:
    """What a merged redrive publishes.

    Args:
        plan: Of the redrive.
        store: Its work.
        records: Its commit records.
        old: The old output; it is only read.
    """

    def __init__(
        self, plan: Plan, store: Store, records: Iterable[Record], old: Store
    ) -> None:
        self._plan = plan
        self._store = store
        self._old = old
        self._of_gap = {
            number: list(found) for number, found in groupby(records, lambda one: one["r"][0])
        }

    def columns(self) -> Columns:
        """Return the columns of all rows, in the rows' order."""
        found: Columns = ()
        for number, kept in enumerate(self._plan.layout.kept):
            found = union(found, kept.columns)
            found = union(found, columns_of(self._of_gap.get(number, ())))
        return found

    def row_bytes(self, name: str, columns: Columns) -> Iterator[bytes]:
        """Yield the file of all rows."""
        if format_of(name) == "parquet":
            from inferay.engine.batch.formats.parquet_file import parquet_of

            return parquet_of(self._batches(columns), columns)
        return self._chunks()

    def counts(self, own: dict[str, int]) -> dict[str, int]:
        """Return the counts of the whole, given those of the redrive itself."""
        old = self._plan.counts
        replaced = sum(gap.rows for gap in self._plan.layout.gaps)
        return {
            "items": old["items"], "items_ok": old["items"] - own["items_failed"],
            "items_failed": own["items_failed"], "mini_batches": old["mini_batches"],
            "rows": old["rows"] - replaced + own["rows"],
        }

    def number_of(self, number: int) -> int:
        """Return which mini-batch of the old job a mini-batch belongs to."""
        return self._plan.number_of(number)

    def publish_files(self, new: list[Published], output: Store) -> list[Published]:
        """Publish the old files beside the new ones; return all, in bytewise order of names.

        A file that `init()` wrote anew replaces the old one.

        Raises:
            JobError: An old file is gone or changed, or a mini-batch wrote one under its name.
        """
        found = {file.name: file for file in new}
        by_init = {
            file["name"] for records in self._of_gap.values() for record in records
            for file in record["files"] if file["mini_batch"] < 0
        }
        for file in self._plan.files:
            one = Published(file["name"], file["size_bytes"], file["sha256"])
            own = found.setdefault(one.name, one)
            if own.sha256 != one.sha256 and one.name not in by_init:
                raise JobError(
                    f"a mini-batch wrote '{one.name}', which job {self._plan.job} wrote already, "
                    "with other content; give each mini-batch's file a name of its own",
                    code="OutputNameClash", target=one.name,
                )
            if own is one:
                outputs.copy_file(self._old, one, output, self._plan.job)
        return [found[name] for name in sorted(found)]

    def _chunks(self) -> Iterator[bytes]:
        name = (self._plan.rows or {}).get("name", "")
        at = 0
        for number, kept in enumerate(self._plan.layout.kept):
            yield from outputs.chunks(self._old, name, at, at + kept.size_bytes)
            at += kept.size_bytes
            if number < len(self._plan.layout.gaps):
                yield from outputs.segments(self._store, self._of_gap.get(number, ()))
                at += self._plan.layout.gaps[number].size_bytes

    def _batches(self, columns: Columns) -> Iterator[Any]:
        from inferay.engine.batch.formats.parquet_file import RowsOf, stored_batches

        rows = self._plan.rows or {"name": "", "size_bytes": 0}
        old = RowsOf(_StoredFile(self._old, rows["name"], rows["size_bytes"]), columns)
        for number, kept in enumerate(self._plan.layout.kept):
            yield from old.take(kept.rows)
            if number < len(self._plan.layout.gaps):
                own = outputs.segments(self._store, self._of_gap.get(number, ()))
                yield from stored_batches(own, columns)
                for _ in old.take(self._plan.layout.gaps[number].rows):
                    pass


class _StoredFile(io.RawIOBase):
    """A name in a store as a file that is read anywhere."""

    def __init__(self, store: Store, name: str, size_bytes: int) -> None:
        super().__init__()
        self._store, self._name, self._size = store, name, size_bytes
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read there next."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the file goes."""
        data = self._store.read(self._name, self._at, min(self._size, self._at + len(buffer)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
