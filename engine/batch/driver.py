"""The driver of one epoch of a job: claim, list, dispatch, commit, publish.

It keeps the protocol's order: the epoch is claimed before anything is written, the manifest is
sealed before the first lease, a record is durable before it counts, `sealed` ends the journal
before anything is published, and `_SUCCESS.json` is last.
"""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from inferay.engine.batch import output as outputs
from inferay.engine.batch.changes import check_unchanged, facts_of
from inferay.engine.batch.dispatch import Counts, Dispatcher
from inferay.engine.batch.formats.so_far import ColumnsSoFar
from inferay.engine.batch.journal import (
    SupersededError,
    check_newest,
    claim,
    epoch_facts,
    epochs,
    journal_of,
    valid_records,
)
from inferay.engine.batch.journal_writer import JournalWriter
from inferay.engine.batch.listing import Listing, check_outside, input_root, list_input
from inferay.engine.batch.logs import write_logs
from inferay.engine.batch.loop import ScoringLoop
from inferay.engine.batch.manifest import (
    SEAL,
    ManifestReader,
    Seal,
    read_seal,
    write_manifest,
)
from inferay.engine.batch.messages import JournalFailed, WorkerSettings
from inferay.engine.batch.plan import Planned, plan_mini_batches
from inferay.engine.batch.pool import Events, Pool, SettingsOf
from inferay.engine.batch.progress import ProgressWriter
from inferay.engine.batch.publish import assemble, publish_partial
from inferay.engine.batch.redrive import PLAN, make_plan, present, read_plan
from inferay.engine.batch.result import Canceled, Interrupted, Result
from inferay.engine.batch.slots import STARTS_PER_TURN
from inferay.engine.batch.spec import JobSpec
from inferay.engine.batch.store import Store, is_full, open_store
from inferay.engine.batch.units import Unit, items_of
from inferay.engine.storage import Access, is_remote, redacted
from inferay.errors import Conflict, InferayError, JobError

#: How often an object store is asked whether to cancel: it takes a request.
CANCEL_LOOK_S = 1.0

#: Name in the job's store whose existence asks the driver to cancel.
CANCEL = "cancel"

_T = TypeVar("_T")

#: Space that a job takes at its start and gives back at its end: on a full disk, that it failed,
#: and why, can still be written.
RESERVE = "reserve"
RESERVE_BYTES = 256 << 10

#: Makes a pool, given the settings of its workers and where its events go.
PoolFactory = Callable[[SettingsOf, Events], Pool]


@dataclass
class Driver:
    """One epoch of one job, on one thread; `run` is called once.

    Attributes:
        spec: The job.
        make_pool: Makes the workers' pool, once it is needed.
        epoch: Claim exactly this epoch; None: the next free one.
        is_stopped: Asked often; True ends the driver and leaves the job to be resumed.
        access: How remote storage is reached.
    """

    spec: JobSpec
    make_pool: PoolFactory
    epoch: int | None = None
    is_stopped: Callable[[], bool] = lambda: False
    access: Access = field(default_factory=Access)
    _events: Events = field(default_factory=queue.SimpleQueue)
    _loop: ScoringLoop | None = None
    _cancel_looked_s: float = 0.0
    _pool: Pool | None = None
    _started: int = 0   # workers, before the first lease
    _columns: ColumnsSoFar = field(default_factory=ColumnsSoFar)
    _listing: Listing = field(default_factory=Listing)

    def run(self) -> Result:
        """Run the job to its end; blocks.

        Raises:
            Conflict: The output exists, or a newer driver has the job; nothing was changed.
            Interrupted: `is_stopped` said so; the job can be resumed.
        """
        store = open_store(self.spec.work, self.access)
        output = open_store(self.spec.output, self.access)
        refusal = self._output_refusal(store, output) or self._refusal(store, output)
        if refusal is not None and self.epoch is None:
            raise refusal
        facts = {} if epochs(store) else {"began": facts_of(self.spec)}
        try:
            epoch, log = claim(store, facts, epoch=self.epoch)
        except OSError as error:
            raise _storage_full(error) from error
        progress = ProgressWriter(store, epoch)
        writer = JournalWriter(
            log, on_durable=lambda group: None,
            on_error=lambda error: self._events.put(JournalFailed(error)),
            gather_s=journal_of(store).gather_s,
        )
        dispatcher: Dispatcher | None = None
        try:
            progress.write("Preparing")
            store.replace(RESERVE, os.urandom(RESERVE_BYTES))
            if refusal is not None:
                raise refusal
            seal = self._seal(store, epoch)
            dispatcher = self._dispatcher(store, seal)
            self._dispatch(store, dispatcher, writer, progress, epoch)
            progress.write("Finalizing", dispatcher)
            self._publish(store, output, dispatcher, writer, epoch, seal, progress)
            seconds = self._seconds()
            self._close_pool()
            result = Result(
                "Completed", epoch, self.spec.output, dispatcher.counts, None, seconds
            )
        except (SupersededError, Interrupted):
            raise
        except (InferayError, OSError) as error:
            self._close_pool()
            writer.close()
            check_newest(store, epoch)
            result = Result(
                "Canceled" if isinstance(error, Canceled) else "Failed", epoch, self.spec.output,
                dispatcher.counts if dispatcher else Counts(), _storage_full(error).as_dict(),
                self._seconds(),
            )
            with contextlib.suppress(InferayError, OSError):   # the first error says why
                if self._is_published(output):   # only the last request's answer was lost
                    result = replace(result, status="Completed", error=None)
                else:
                    publish_partial(self.spec, self.access)
        finally:
            self._close_pool()
            writer.close()
        store.remove(RESERVE)
        try:
            self._write_logs(store, result, dispatcher)
            progress.write(result.status, dispatcher, error=result.error)
            store.create(f"result/{epoch}.json", result.to_bytes())
        except OSError as error:
            raise _storage_full(error) from error
        return result

    def _write_logs(
        self, store: Store, result: Result, dispatcher: Dispatcher | None
    ) -> None:
        failures = (
            failure for record in valid_records(store) if record["k"] == "commit"
            for failure in record["failures"]
        )
        write_logs(
            Path(self.spec.logs), status=result.status, counts=result.counts,
            mini_batches=dispatcher.mini_batches if dispatcher else 0, error=result.error,
            failures=failures,
        )

    # -- the phases

    def _output_refusal(self, store: Store, output: Store) -> InferayError | None:
        """Return why a job that has not begun to write cannot have its output; as `_refusal`."""
        try:
            if not store.exists(SEAL):
                check_outside(self.spec.output, self.spec.input)
                outputs.check_free(output, self.spec.settings.output_file_name, self.spec.output)
        except (InferayError, OSError) as error:
            return _storage_full(error)
        return None

    def _refusal(self, store: Store, output: Store) -> InferayError | None:
        """Return why a job that was begun must not go on: something changed.

        A driver that was told its epoch claims it all the same, and records this as the job's end:
        it is the only one, and nobody reads what it prints. A published job has ended already.
        """
        if not epochs(store):
            return None
        try:
            sealed = read_seal(store) if store.exists(SEAL) else None
            check_unchanged(
                self.spec, epoch_facts(store)["began"],
                ManifestReader(store, sealed).units() if sealed else (),
                self._listed(store, sealed) if sealed else (),
            )
        except InferayError as error:
            with contextlib.suppress(InferayError, OSError):
                if self.epoch is not None and outputs.is_published(output, self.spec.name):
                    return None
            return error
        return None

    def _seal(self, store: Store, epoch: int) -> Seal:
        links = 0
        if store.exists(SEAL):
            seal = read_seal(store)
        else:
            root, planned = self._plan(store)
            batches = self._starting_workers(planned.mini_batches, epoch)
            if self.spec.settings.table:   # one file may take long to count
                batches = self._not_stopped(store, batches, every=64)
            seal = write_manifest(store, batches, root=root, epoch=epoch, types=planned.types)
            links = self._listing.links_skipped
        if seal.items == 0:
            what = "rows" if self.spec.settings.table else "files"
            hint = f"; {links} links lead out of it and were not followed" if links else ""
            raise JobError(
                f"the input {redacted(self.spec.input)} has no {what}{hint}", code="NoInput",
                target=redacted(self.spec.input),
            )
        return seal

    def _starting_workers(
        self, mini_batches: Iterable[list[Unit]], epoch: int
    ) -> Iterator[list[Unit]]:
        """Start a worker for each of the first mini-batches: they load while the rest is listed."""
        count = min(self.spec.workers.count, STARTS_PER_TURN)
        for mini_batch in mini_batches:
            if self._started < count:
                self._open_pool(epoch).start(self._started)
                self._started += 1
            yield mini_batch

    def _open_pool(self, epoch: int) -> Pool:
        if self._pool is None:
            self._pool = self.make_pool(
                lambda slot, start: self._worker(epoch, slot, start), self._events
            )
        return self._pool

    def _plan(self, store: Store) -> tuple[str, Planned]:
        if self.spec.redrive is not None:
            redrive, root, planned = make_plan(
                self.spec.redrive, self.spec.settings.table, self.access
            )
            store.replace(PLAN, redrive.to_bytes())
            return root, planned
        root, units = self._list()
        units = self._not_stopped(store, units)
        return root, plan_mini_batches(
            units, self.spec.settings, root, self.access,
            skips_hidden=self.spec.input_type == "uri_folder",
            has_images=self.spec.flavor == "mlflow",
        )

    def _list(self) -> tuple[str, Iterator[Unit]]:
        return list_input(
            self.spec.input, self.spec.input_type, self._listing, access=self.access
        )

    def _listed(self, store: Store, seal: Seal) -> Iterator[Unit]:
        """Return the input as it is now: of a redrive, only the items that it has."""
        if self.spec.redrive is not None:
            return present(seal.root, ManifestReader(store, seal).units(), self.access)
        return self._list()[1]

    def _not_stopped(
        self, store: Store, things: Iterable[_T], every: int = 10_000
    ) -> Iterator[_T]:
        for number, thing in enumerate(things):
            if number % every == 0:
                self._check_stop(store)
            yield thing

    def _dispatcher(self, store: Store, seal: Seal) -> Dispatcher:
        manifest = ManifestReader(store, seal)
        settings = self.spec.settings
        dispatcher = Dispatcher(
            mini_batches=seal.mini_batches, workers=self.spec.workers.count,
            max_retries=settings.max_retries, error_threshold=settings.error_threshold,
            items_of=lambda index: items_of(manifest.mini_batch(index)),
            script=self.spec.scored_by,
            is_fetching=is_remote(self.spec.input) and not settings.table,
        )
        old = read_plan(store)
        if old is not None and old.is_merged:   # the new rows have to fit to the old ones
            self._columns.take_old(old.job, [kept.columns for kept in old.layout.kept])
        for record in valid_records(store):
            dispatcher.replay(record)
            self._columns.take(record)
        if self._started > len(dispatcher.workers):   # another driver sealed, with less to do
            self._close_pool()
            self._pool, self._started = None, 0
        dispatcher.begin(self._started)
        return dispatcher

    def _dispatch(
        self, store: Store, dispatcher: Dispatcher, writer: JournalWriter,
        progress: ProgressWriter, epoch: int,
    ) -> None:
        """Score all that is not done; returns when it is, raises when the job fails."""
        if dispatcher.is_over and dispatcher.failure is None:
            return
        pool = self._open_pool(epoch)
        self._loop = ScoringLoop(
            dispatcher, self._events, writer, progress, self._columns,
            timeout_s=self.spec.settings.timeout_s, is_fetching=is_remote(self.spec.input),
        )
        self._loop.run(pool, lambda: self._check_stop(store))

    def _publish(
        self, store: Store, output: Store, dispatcher: Dispatcher, writer: JournalWriter,
        epoch: int, seal: Seal, progress: ProgressWriter,
    ) -> None:
        if dispatcher.counts.items_ok == 0:
            raise dispatcher.nothing_succeeded_error()
        check_newest(store, epoch)
        writer.append({"k": "sealed", "by": epoch})
        writer.close()
        self._check_journal()
        if not outputs.is_published(output, self.spec.name):
            assemble(
                self.spec, store, output, seal=seal, epoch=epoch, counts=dispatcher.counts,
                run_facts=progress.run_facts(dispatcher.counts), close_files=self._close_pool,
                access=self.access,
            )
        with contextlib.suppress(InferayError, OSError):   # what is left over harms nobody
            for folder in ("segments", "files", "staging"):
                store.delete(folder)

    def _is_published(self, output: Store) -> bool:
        try:
            return outputs.is_published(output, self.spec.name)
        except Conflict:   # another job has published there
            return False

    def _check_stop(self, store: Store) -> None:
        if self.is_stopped():
            raise Interrupted("the driver was told to stop; the job can be resumed")
        now_s = time.monotonic()
        if not store.can_append and now_s - self._cancel_looked_s < CANCEL_LOOK_S:
            return
        self._cancel_looked_s = now_s
        if store.exists(CANCEL):
            raise Canceled("the job was canceled")

    def _close_pool(self) -> None:
        """End the workers; on the way to Completed only once their rows are published."""
        if self._pool is not None:
            self._pool.close()

    def _seconds(self) -> float:
        """Return the time since the first lease."""
        first_s = self._loop.first_lease_s if self._loop else None
        return time.monotonic() - first_s if first_s else 0.0

    def _check_journal(self) -> None:
        while not self._events.empty():
            event = self._events.get()
            if isinstance(event, JournalFailed):
                raise event.error

    def _worker(self, epoch: int, slot: int, start: int) -> WorkerSettings:
        spec, settings = self.spec, self.spec.settings
        name = f"e{epoch}-w{slot}-{start}"
        return WorkerSettings(
            code_dir=spec.code, scoring_script=spec.scoring_script, model_dir=spec.model_dir,
            model=spec.model, flavor=spec.flavor,
            model_hash=spec.hashes["model"] if "model" in spec.assets else "",
            root=input_root(spec.input, spec.input_type), access=self.access,
            store=spec.work, segment=f"segments/{name}",
            logs=f"{spec.logs}/user", log_name=f"process{slot:03d}",
            environment_variables=settings.environment_variables,
            logging_level=settings.logging_level, output_action=settings.output_action,
            output_file_name=settings.output_file_name,
            commits_singly=spec.redrive is not None and spec.redrive.merge,
            timeout_s=settings.timeout_s, threads=spec.workers.threads, packages=spec.packages,
            environment=spec.environment,
            table=settings.table, memory_limit_bytes=spec.workers.memory_bytes,
            keeps_standby=spec.workers.num_gpus == 0,
        )


def _storage_full(error: InferayError | OSError) -> InferayError:
    if isinstance(error, InferayError):
        return error
    if is_full(error):
        return JobError(
            f"no space is left where the job writes ({error.filename or 'its work folder'}); make "
            "space, then resume the job",
            code="StorageFull",
        )
    return JobError(f"the job's storage failed: {error}", code="StorageFailed")
