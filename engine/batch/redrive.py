"""A job of the failed items of another one: what they are, and where their rows belong.

The old job's *layout* is its output as a sequence: rows that are kept, a gap, rows, a gap, …. A gap
is a run of failed items of one mini-batch; it has rows only where `run()` returned too few, and
those are replaced. The new job has a mini-batch per gap. The layout is stored in its work, so that
it stands for itself afterwards: a redrive of a redrive needs only the latter.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from inferay.engine.batch import output as outputs
from inferay.engine.batch.changes import NAMED_MAX, changed_units
from inferay.engine.batch.formats.columns import Columns, from_json, to_json, union
from inferay.engine.batch.journal import Record
from inferay.engine.batch.manifest import ManifestReader, Seal, check_version, read_seal
from inferay.engine.batch.plan import Planned
from inferay.engine.batch.spec import Redrive
from inferay.engine.batch.store import Store, open_store
from inferay.engine.batch.units import Range, Unit, narrowed
from inferay.engine.storage import Access, is_remote
from inferay.engine.storage.read_errors import ReadError
from inferay.errors import Conflict, InvalidInput, JobError

PLAN = "redrive.json"
FORMAT = "inferay.redrive"
VERSION = 1


@dataclass(frozen=True)
class Kept:
    """Rows of the old output that stay, between two gaps."""

    size_bytes: int = 0
    rows: int = 0
    columns: Columns = ()


@dataclass(frozen=True)
class Gap:
    """Failed items of one mini-batch, next to each other.

    Attributes:
        mini_batch: By the number that the output's first job gave it.
        items: First and stop in that mini-batch.
        size_bytes: Of the old rows that are replaced.
        rows: How many those are.
        units: Where the old job's manifest has the items: mini-batch, first, stop.
    """

    mini_batch: int
    items: tuple[int, int]
    size_bytes: int
    rows: int
    units: tuple[int, int, int]


@dataclass(frozen=True)
class Layout:
    """The old output: one more of `kept` than of `gaps`."""

    kept: tuple[Kept, ...]
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class Plan:
    """What a redrive works by.

    Attributes:
        job: The old job.
        is_merged: Whether its rows are part of the new output.
        rows: Name, size and sha256 of the old rows; None for `summary_only`.
        files: The same of the files that its script wrote, without those of gaps.
        counts: Of the old job.
        layout: Of its output.
    """

    job: str
    is_merged: bool
    rows: dict[str, Any] | None
    files: tuple[dict[str, Any], ...]
    counts: dict[str, int]
    layout: Layout

    def to_bytes(self) -> bytes:
        """Return the plan as it is stored."""
        return json.dumps({
            "format": FORMAT, "version": VERSION, "job": self.job, "is_merged": self.is_merged,
            "rows": self.rows, "files": self.files, "counts": self.counts,
            "kept": [[one.size_bytes, one.rows, to_json(one.columns)] for one in self.layout.kept],
            "gaps": [
                [one.mini_batch, one.items, one.size_bytes, one.rows, one.units]
                for one in self.layout.gaps
            ],
        }).encode()

    def number_of(self, mini_batch: int) -> int:
        """Return which mini-batch of the old job one of the new job belongs to."""
        return self.layout.gaps[mini_batch].mini_batch

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Return the plan that `to_bytes` wrote."""
        found = json.loads(data)
        check_version(found, FORMAT, VERSION)
        kept = tuple(Kept(size, rows, from_json(columns)) for size, rows, columns in found["kept"])
        gaps = tuple(
            Gap(number, (items[0], items[1]), size, rows, (units[0], units[1], units[2]))
            for number, items, size, rows, units in found["gaps"]
        )
        return cls(
            found["job"], found["is_merged"], found["rows"], tuple(found["files"]),
            found["counts"], Layout(kept, gaps),
        )


def make_plan(redrive: Redrive, table: str, access: Access) -> tuple[Plan, str, Planned]:
    """Return the plan, what the units' paths are relative to, and the mini-batches.

    Reads the old rows whole if they are to be merged.

    Args:
        redrive: Of the new job's spec.
        table: What its `run()` takes: `pandas`, `pyarrow`, or "" for paths.
        access: How remote storage is reached.

    Raises:
        JobError: Nothing failed, or the old job or its output is not there as it was.
        InvalidInput: Rows failed, but `run()` takes paths, or files, and it takes tables.
        Conflict: A failed item changed since.
    """
    store, output = open_store(redrive.work, access), open_store(redrive.output, access)
    success = _success(redrive, output)
    try:
        seal = read_seal(store)
    except FileNotFoundError:
        raise JobError(
            f"the work folder of job {redrive.job}, {redrive.work}, has no manifest any more; "
            "invoke the endpoint again with the items that failed", code="RedriveImpossible",
        ) from None
    layout, files_of_gaps = layout_of(store, seal)
    if not layout.gaps:
        raise JobError(f"no item of job {redrive.job} failed: there is nothing to redrive",
                       code="NothingToRedrive", target=redrive.job)
    rows = next((file for file in success["files"] if file["name"] == redrive.rows), None)
    files = tuple(
        file for file in success["files"]
        if file["name"] != redrive.rows and file["name"] not in files_of_gaps
    )
    plan = Plan(redrive.job, redrive.merge, rows, files, success["counts"], layout)
    if redrive.merge:
        check_old_rows(plan, output)
    manifest = ManifestReader(store, seal)
    units = list(_units(manifest, layout))
    check_argument(redrive.job, any(unit.rows is not None for unit in units), table)
    _check_input(redrive.job, seal, units, access)
    # Types as pandas has them say nothing to Arrow, nor the other way round.
    types = {
        path: one for path, one in manifest.types.items()
        if isinstance(one, str) == (table == "pyarrow")
    }
    return plan, seal.root, Planned(_mini_batches(manifest, layout), types)


def check_argument(job: str, is_of_rows: bool, table: str) -> None:
    """Check that what failed can be given to `run()`: rows as a table, files as paths.

    Raises:
        InvalidInput: It cannot.
    """
    if is_of_rows and not table:
        raise InvalidInput(
            f"rows of files failed in job {job}, whose run() took tables; this run() takes paths "
            "and would score the whole files: let it take a table, or invoke the endpoint anew",
            code="RedriveImpossible", target=job,
        )
    if table and not is_of_rows:
        raise InvalidInput(
            f"files failed in job {job}, whose run() took paths; this run() takes tables: let it "
            "take paths, or invoke the endpoint anew",
            code="RedriveImpossible", target=job,
        )


def read_plan(store: Store) -> Plan | None:
    """Return the plan of a job's work, or None if it is no redrive."""
    try:
        return Plan.from_bytes(store.read(PLAN))
    except FileNotFoundError:
        return None


def layout_of(store: Store, seal: Seal) -> tuple[Layout, set[str]]:
    """Return the layout of a published job, and which files its gaps alone wrote.

    Raises:
        JobError: Its journal is damaged.
    """
    records = outputs.committed(store)
    outputs.check_complete(records, seal)
    plan = read_plan(store)
    builder = _Builder()
    if plan is not None and plan.is_merged:
        _lay_merged(builder, plan.layout, records)
    else:
        for record in records:
            builder.add(record)
    of_gaps = {file["name"] for record in records if record["failures"]
               for file in record["files"]}
    of_kept = {file["name"] for record in records if not record["failures"]
               for file in record["files"]}
    return builder.layout(), of_gaps - of_kept


def check_old_rows(plan: Plan, output: Store) -> None:
    """Check that the old rows are still what the old job published; reads them whole.

    Raises:
        JobError: They are not.
    """
    if plan.rows is None:
        return
    digest, start = hashlib.sha256(), 0
    try:
        while chunk := output.read(plan.rows["name"], start, start + outputs.COPY_BYTES):
            digest.update(chunk)
            start += len(chunk)
    except FileNotFoundError:
        start = -1
    if digest.hexdigest() != plan.rows["sha256"]:
        what = "is gone from" if start < 0 else "was changed in"
        raise JobError(
            f"{plan.rows['name']} of job {plan.job} {what} its output; put it back as it was, or "
            "redrive without --merge", code="OutputChanged", target=plan.rows["name"],
        )


def present(root: str, units: Iterable[Unit], access: Access) -> Iterator[Unit]:
    """Yield the units' files as they are now; passes over those that are gone."""
    if is_remote(root):
        from inferay.engine.storage.remote import open_remote  # brings clients

        remote = open_remote(root, access)
        for unit in units:
            try:
                now = remote.stat(unit.path)
            except ReadError as error:
                if error.code != "InputMissing":
                    raise
                continue
            yield Unit(unit.path, now.size_bytes, now.version)
        return
    for unit in units:
        try:
            found = os.stat(f"{root}/{unit.path}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        yield Unit(unit.path, found.st_size, found.st_mtime_ns)


class _Builder:
    """Puts a layout together, front to back; gaps that touch become one."""

    def __init__(self) -> None:
        self._kept = [Kept()]
        self._gaps: list[Gap] = []

    def keep(self, more: Kept) -> None:
        last = self._kept[-1]
        self._kept[-1] = Kept(
            last.size_bytes + more.size_bytes, last.rows + more.rows,
            union(last.columns, more.columns),
        )

    def add(self, record: Record, gap: Gap | None = None) -> None:
        """Add a commit record; `gap` is the one of an earlier redrive that it belongs to."""
        start, stop = record["at"]
        if not record["failures"]:
            columns = from_json(record.get("columns", ()))
            self.keep(Kept(stop - start, record["rows"], columns))
            return
        done = Range.from_json(record["r"])
        first, last = done.items or tuple(record["failures"][0]["items"])
        number, shift = (gap.mini_batch, gap.items[0]) if gap else (done.first, 0)
        self._add_gap(Gap(
            number, (first + shift, last + shift), stop - start, record["rows"],
            (done.first, first, last),
        ))

    def layout(self) -> Layout:
        return Layout(tuple(self._kept), tuple(self._gaps))

    def _add_gap(self, more: Gap) -> None:
        last = self._gaps[-1] if self._gaps else None
        touches = last is not None and last.units[0] == more.units[0] \
            and last.units[2] == more.units[1]
        if last is None or not touches:
            self._gaps.append(more)
            self._kept.append(Kept())
            return
        self._gaps[-1] = Gap(
            last.mini_batch, (last.items[0], more.items[1]), last.size_bytes + more.size_bytes,
            last.rows + more.rows, (last.units[0], last.units[1], more.units[2]),
        )


def _lay_merged(builder: _Builder, before: Layout, records: Iterable[Record]) -> None:
    """Lay out what a merged redrive published: the old rows, and its own in the gaps."""
    waiting = iter(records)
    record = next(waiting, None)
    for number, gap in enumerate(before.gaps):
        builder.keep(before.kept[number])
        while record is not None and record["r"][0] == number:
            builder.add(record, gap)
            record = next(waiting, None)
    builder.keep(before.kept[-1])


def _success(redrive: Redrive, output: Store) -> dict[str, Any]:
    try:
        found = json.loads(output.read(outputs.SUCCESS))
    except (FileNotFoundError, ValueError):
        found = {}
    if found.get("run", {}).get("job") != redrive.job:
        raise JobError(
            f"{redrive.output} has no {outputs.SUCCESS} of job {redrive.job} any more; put its "
            "output back, or invoke the endpoint again", code="OutputMissing", target=redrive.job,
        )
    success: dict[str, Any] = found
    return success


def _units(manifest: ManifestReader, layout: Layout) -> Iterator[Unit]:
    for mini_batch in _mini_batches(manifest, layout):
        yield from mini_batch


def _mini_batches(manifest: ManifestReader, layout: Layout) -> Iterator[list[Unit]]:
    for gap in layout.gaps:
        number, first, stop = gap.units
        yield narrowed(manifest.mini_batch(number), (first, stop))


def _check_input(job: str, seal: Seal, units: list[Unit], access: Access) -> None:
    differences = changed_units(units, present(seal.root, units, access))
    named = list(islice(differences, NAMED_MAX))
    if named:
        more = sum(1 for _ in differences)
        raise Conflict(
            f"items of job {job} changed since: {'; '.join(named)}"
            f"{f'; and {more} more' if more else ''}; invoke the endpoint with the new input",
            code="InputChanged", target=job,
        )
