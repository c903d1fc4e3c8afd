"""The columns of the rows committed so far: so that types which do not fit are found at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from inferay.engine.batch.formats.columns import Columns, from_json, union
from inferay.errors import JobError

#: Different columns of records that are known to fit; they are few, or the rows are odd.
_TAKEN_MAX = 1_000


class ColumnsSoFar:
    """Takes in commit records, in any order.

    The order of columns is no matter here: the file's is that of its rows.
    """

    def __init__(self) -> None:
        self._columns: Columns = ()
        self._seen: dict[str, dict[str, Any]] = {}
        self._taken: set[str] = set()

    def take_old(self, job: str, columns: Iterable[Columns]) -> None:
        """Take in the columns of another job's rows, which fit together."""
        for one in columns:
            self._columns = union(self._columns, one)
        for name, _ in self._columns:
            self._seen[name] = {"job": job}

    def take(self, record: dict[str, Any]) -> None:
        """Take in the columns of a record.

        Raises:
            JobError: A column has types that have no common one; names the mini-batches.
        """
        if "columns" not in record or (key := repr(record["columns"])) in self._taken:
            return
        if len(self._taken) >= _TAKEN_MAX:
            self._taken.clear()
        self._taken.add(key)
        before = dict(self._columns)
        try:
            self._columns = union(self._columns, from_json(record["columns"]))
        except JobError as error:
            other = self._seen.get(error.target or "")
            where = f"{_name(other)} and {_name(record)}: " if other else ""
            raise JobError(
                where + error.message, code=error.code, target=error.target
            ) from None
        for name, kind in self._columns:
            if before.get(name) != kind:
                self._seen[name] = record


def columns_of(records: Iterable[dict[str, Any]], *, is_lenient: bool = False) -> Columns:
    """Return the columns of all the records' rows, in the rows' order.

    Raises:
        JobError: A column has types that have no common one, and `is_lenient` is not set.
    """
    columns: Columns = ()
    last: Any = None
    for record in records:
        if "columns" in record and record["columns"] != last:
            last = record["columns"]
            columns = union(columns, from_json(last), is_lenient=is_lenient)
    return columns


def _name(record: dict[str, Any]) -> str:
    if "job" in record:
        return f"job {record['job']}"
    first, stop = record["r"][:2]
    return f"mini-batch {first}" if stop == first + 1 else f"mini-batches {first} to {stop - 1}"
