"""A worker's whole work on a lease: read the manifest, call `run()`, keep the rows, answer.

Rows are gathered and written to the worker's own segment. A receipt that names them is sent once
they are durable. They never pass through the driver.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

from inferay.engine.batch.formats import make_encoder
from inferay.engine.batch.formats.columns import Columns, union
from inferay.engine.batch.formats.encoding import Encoded
from inferay.engine.batch.formats.sources import Source
from inferay.engine.batch.hand import Hand
from inferay.engine.batch.inputs import Inputs
from inferay.engine.batch.manifest import ManifestReader, read_seal
from inferay.engine.batch.messages import (
    Done,
    Failed,
    Failure,
    Lease,
    Receipt,
    StoredFile,
    WorkerSettings,
)
from inferay.engine.batch.rows import RowsError
from inferay.engine.batch.segment import Segment
from inferay.engine.batch.staging import SharedFileError, Staging
from inferay.engine.batch.store import Store, is_full
from inferay.engine.batch.units import Range, Unit, items_of, pieces_of
from inferay.engine.scoring.flavors import COLUMNS_MISSING
from inferay.engine.scoring.tracebacks import describe_exception, user_traceback
from inferay.engine.storage.read_errors import ReadError
from inferay.errors import InferayError, InvalidInput, JobError, UserCodeError


@dataclass(frozen=True)
class _Scored:
    """A mini-batch that succeeded."""

    encoded: list[Encoded]
    items: int
    files: tuple[StoredFile, ...]

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.encoded)

    @property
    def rows_missing(self) -> int:
        return max(0, self.items - self.rows)

    @property
    def columns(self) -> Columns:
        if len(self.encoded) == 1:   # as for all scripts that take paths
            return self.encoded[0].columns
        return reduce(union, (one.columns for one in self.encoded), ())


@dataclass
class _Run:
    """Consecutive mini-batches that succeeded: what becomes one `Done`."""

    first: int
    items_of_part: tuple[int, int] | None
    start: int
    columns: Columns = ()
    rows: int = 0
    items: int = 0
    missing: list[tuple[int, int, int]] = field(default_factory=list)
    files: list[StoredFile] = field(default_factory=list)


class Scorer:
    """Scores leases, one after the other, in the process that holds the user's code."""

    def __init__(
        self, settings: WorkerSettings, run: Callable[[Any], Any], staging: Staging,
        hand: Hand, store: Store, scratch: Path | None = None,
        column_types: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._run = run
        self._staging = staging
        self._hand = hand
        self._store = store
        self._manifest: ManifestReader | None = None
        self._inputs = Inputs(
            settings.root, settings.table, self._types_of, access=settings.access, scratch=scratch,
            column_types=column_types,
        )
        self._ahead: dict[tuple[int, tuple[int, int] | None], list[Unit]] = {}
        self._encoder = make_encoder(
            settings.output_action, settings.output_file_name, settings.flavor
        )
        self._current: _Run | None = None
        self._done: list[Done] = []
        self._segment = Segment(self._store, f"{settings.segment}.rows")
        self._run_s = 0.0
        self._slowest = (0, -1.0)
        self._init_files = staging.keep_init_files()

    def score(
        self, lease: Lease, waiting: Callable[[], Sequence[Lease]] = tuple
    ) -> tuple[Receipt, Future[None]]:
        """Score the lease, or as much as its budget holds.

        Args:
            lease: What to score.
            waiting: Returns the leases after it, whose files may be fetched meanwhile.

        Returns:
            The receipt, and when it holds: the future is done once all rows are durable. The next
            lease may be scored in the meantime.
        """
        began_s = time.monotonic()
        self._manifest = self._manifest or ManifestReader(self._store, read_seal(self._store))
        self._run_s = 0.0
        self._slowest = (lease.range.first, -1.0)
        fetched_s = self._inputs.fetch_s
        self._done = []
        failed: list[Failed] = []
        rest: Range | None = None
        for index in range(lease.range.first, lease.range.stop):
            if index > lease.range.first and time.monotonic() - began_s > lease.budget_s:
                rest = Range(index, lease.range.stop)
                break
            if self._inputs.wants_more:
                self._prefetch(self._manifest, replace(lease.range, first=index), waiting)
            outcome = self._score_one(self._manifest, index, lease.range.items)
            if isinstance(outcome, Failed):
                self._end_run(index)
                failed.append(outcome)
            else:
                self._add(index, lease.range.items, outcome)
        self._end_run(rest.first if rest else lease.range.stop)
        self._forget(rest)
        wall_s = time.monotonic() - began_s
        receipt = Receipt(
            lease.id, tuple(self._done), tuple(failed), rest, self._run_s, wall_s, self._slowest,
            self._inputs.fetch_s - fetched_s,
        )
        return receipt, self._segment.flush()

    def close(self) -> None:
        """Release the segment and the staging folder; fetch no more."""
        self._inputs.close()
        self._segment.close()
        self._staging.remove()

    def _score_one(
        self, manifest: ManifestReader, index: int, items_of_part: tuple[int, int] | None
    ) -> _Scored | Failed:
        units = manifest.mini_batch(index)
        items = items_of(units) if items_of_part is None else items_of_part[1] - items_of_part[0]
        needed = [] if self._settings.table else _sliced(units, items_of_part)
        self._ahead.pop((index, items_of_part), None)
        where = Range(index, index + 1, items_of_part)
        try:
            self._inputs.fetch(needed)   # before the clock of `run()` begins
        except ReadError as error:
            self._inputs.release(needed)
            return Failed(where, items, self._explain(error))
        began_s = time.monotonic()
        is_scored = False
        self._hand.take(index)
        try:
            encoded = self._call(units, items_of_part)
            is_scored = True
            files = self._staging.take(index)
        except BaseException as error:   # user code may raise anything, SystemExit too
            if is_scored and _is_of_storage(error):
                raise
            self._staging.discard()
            failure = self._explain(error)
            if failure.kind == COLUMNS_MISSING:
                of_files = {piece.unit.path for piece in pieces_of(units, items_of_part)}
                failure = replace(failure, is_whole=len(of_files) == 1)
            return Failed(where, items, failure)
        finally:
            self._hand.release()
            took_s = time.monotonic() - began_s
            self._run_s += took_s
            if took_s > self._slowest[1]:
                self._slowest = (index, took_s)
            self._inputs.release(needed)
        return _Scored(encoded, items, files)

    def _call(self, units: list[Unit], items: tuple[int, int] | None) -> list[Encoded]:
        """Call `run()` with the paths, or once for each table that the rows make."""
        if not self._settings.table:
            units = _sliced(units, items)
            result = self._run(self._inputs.paths(units))
            named = units if self._encoder.names_sources else []
            return [self._encoder.encode(result, [Source(unit.path) for unit in named])]
        found = []
        for table, sources in self._inputs.tables(pieces_of(units, items)):
            rows = len(table)
            encoded = self._encoder.encode(self._run(table), sources)
            if encoded.rows > rows and self._settings.output_action == "append_row":
                raise RowsError(
                    f"run() returned {encoded.rows} rows for a table of {rows}; it has to return "
                    "a row for each"
                )
            found.append(encoded)
        return found

    def _types_of(self, path: str) -> Any:
        return self._manifest.types.get(path) if self._manifest else None

    def _add(self, index: int, items_of_part: tuple[int, int] | None, scored: _Scored) -> None:
        """Add a mini-batch to the current run, or to a new one where it has to have its own."""
        columns = self._columns_with(scored.columns)
        missing = scored.rows_missing
        is_alone = bool(missing) or self._settings.commits_singly
        if is_alone or columns is None:
            self._end_run(index)
        if self._current is None:
            start = self._segment.end
            self._current = _Run(index, items_of_part, start)
        run = self._current
        run.columns = columns or scored.columns
        run.rows += scored.rows
        run.items += scored.items
        run.files.extend(scored.files)
        for encoded in scored.encoded:
            self._segment.keep(self._encoder.write(encoded))
        if missing:
            run.missing.append((index, scored.items, missing))
        # One that is alone: a redrive replaces its rows as a whole, or puts them into the old ones.
        if is_alone or self._segment.is_full:
            self._end_run(index + 1)
        if self._segment.is_full:
            self._segment.flush()

    def _columns_with(self, columns: Columns) -> Columns | None:
        """Return the current run's columns with these, or None if they do not fit together."""
        if self._current is None or self._current.columns == columns:
            return columns
        try:
            return union(self._current.columns, columns)
        except JobError:   # the driver, which sees both, says so
            return None

    def _prefetch(
        self, manifest: ManifestReader, rest: Range, waiting: Callable[[], Sequence[Lease]]
    ) -> None:
        """Have fetched what comes next, as far as the scratch folder goes."""
        for work in (rest, *(lease.range for lease in waiting())):
            for index in range(work.first, work.stop):
                if not self._inputs.wants_more:
                    return
                if (index, work.items) not in self._ahead:
                    units = _sliced(manifest.mini_batch(index), work.items)
                    self._ahead[index, work.items] = units
                    self._inputs.prefetch(units)

    def _forget(self, rest: Range | None) -> None:
        """Let go of what was fetched ahead and is given back."""
        if rest is None:
            return
        for index in range(rest.first, rest.stop):
            self._inputs.release(self._ahead.pop((index, rest.items), ()))

    def _explain(self, error: BaseException) -> Failure:
        if isinstance(error, (JobError, ReadError, InvalidInput, UserCodeError)):
            return Failure(error.code, error.message)
        if isinstance(error, (RowsError, SharedFileError)):
            return Failure(type(error).__name__.removesuffix("Error"), str(error))
        code_dir = Path(self._settings.code_dir or self._settings.model)
        kind = "OutOfMemory" if isinstance(error, MemoryError) else "Exception"
        return Failure(kind, describe_exception(error), user_traceback(error, code_dir))

    def _end_run(self, stop: int) -> None:
        current, self._current = self._current, None
        if current is None:
            return
        self._segment.keep(self._encoder.end_run())
        end = self._segment.end
        segment = self._segment.name if end > current.start else ""
        files = (*self._init_files, *current.files)
        self._init_files = ()
        self._done.append(Done(
            Range(current.first, stop, current.items_of_part), segment, current.start, end,
            current.rows, current.items, tuple(current.missing), files, current.columns,
        ))


def _sliced(units: list[Unit], items: tuple[int, int] | None) -> list[Unit]:
    return units if items is None else units[slice(*items)]


def _is_of_storage(error: BaseException) -> bool:
    """Return whether it is the job's storage that failed, and not the code."""
    is_named = isinstance(error, InferayError) and not isinstance(error, InvalidInput)
    return is_named or is_full(error)


def thread_variables(threads: int) -> dict[str, str]:
    """Return the variables that set the size of numeric libraries' thread pools."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {name: str(threads) for name in names if name not in os.environ}
