"""Which worker scores what next, and what becomes of a failure: a state machine without I/O.

Events go in (`on_*`), leases and journal records come out. It knows no Ray, no clock and no disk.

Leases are contiguous ranges of mini-batches (`backlog`), sized by measured speed to `max(0.2 s,
workers x 1 ms)` of work and shrinking towards the end (`lease_sizes`). A failed mini-batch is
retried alone, then bisected: each part gets one attempt, and the single item that fails is the
poison. A death blames only the mini-batch in hand, and only if the code itself is the cause. What
fails in the same way everywhere (`sameness`) ends the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from inferay.engine.batch.backlog import Backlog
from inferay.engine.batch.bisection import Part, halves, missing_parts
from inferay.engine.batch.failures import (
    Failures,
    failure_json,
    same_failure_error,
    start_error,
)
from inferay.engine.batch.formats.columns import to_json
from inferay.engine.batch.journal import Record
from inferay.engine.batch.lease_sizes import LeaseSizes
from inferay.engine.batch.messages import Done, Failure, Lease, Receipt
from inferay.engine.batch.sameness import Sameness
from inferay.engine.batch.slots import Slots, Worker
from inferay.engine.batch.units import Range
from inferay.errors import InferayError, JobError

#: Deaths from outside that a mini-batch and its parts survive without blame; each more is an
#: attempt, for a script may kill itself.
KILLS_MAX = 20

#: Ordinary leases, of 0.2 s or so each, that each worker may take before one that is likely to end
#: a process: after these a standby that is not warm never will be, or `init()` is too slow to hide.
PASSES_PER_WORKER = 8

#: Failed starts of one worker in a row before its slot is given up.
STARTS_MAX = 3

#: Failed starts before any worker was ever ready, of whatever causes, before the job is given up.
STARTS_BEFORE_READY_MAX = 6


#: Ends of a worker that another worker would meet too: the job fails, and can be resumed.
FATAL_KINDS = (
    "AccessDenied", "AddressRefused", "BucketMissing", "ClockSkewed", "CredentialsExpired",
    "ManifestDamaged", "StorageFull", "StorageThrottled", "StorageUnavailable",
)


@dataclass
class Counts:
    """How far the job is. Items are units of the input.

    Attributes:
        mini_batches_done: Committed, failed ones included.
        items_ok: Items that succeeded.
        items_failed: Items that failed for good.
        rows: Rows returned.
        retries: Attempts beyond the first.
        deaths: Worker processes that ended unasked.
    """

    mini_batches_done: int = 0
    items_ok: int = 0
    items_failed: int = 0
    rows: int = 0
    retries: int = 0
    deaths: int = 0


class Dispatcher:
    """The whole state of a running job's dispatch.

    Attributes:
        counts: How far the job is.
        failure: Why the job fails, once it does; no lease is given after that.
        slots: The workers, and which of them is to be started or given back.
    """

    def __init__(
        self, *, mini_batches: int, workers: int, max_retries: int, error_threshold: int,
        items_of: Callable[[int], int], script: str = "score.py", is_fetching: bool = False,
    ) -> None:
        self.counts = Counts()
        self.failure: InferayError | None = None
        self.mini_batches = mini_batches
        self.slots = Slots(max(1, min(workers, mini_batches)))
        self.workers = self.slots.workers
        self._max_retries = max_retries
        self._items_of = items_of
        self._script = script
        self._done = bytearray(mini_batches)
        self._parts: dict[int, list[Part]] = {}
        self._attempts: dict[int, int] = {}   # of earlier epochs, where they all failed
        self._backlog = Backlog()
        self._sizes = LeaseSizes(len(self.workers), is_fetching=is_fetching)
        self._kills: dict[int, int] = {}   # by mini-batch
        self._suspects: set[int] = set()   # mini-batches that have ended a process
        self._passes = 0   # how often the first retry was put off
        self._failures = Failures(error_threshold)
        self._sameness = Sameness(mini_batches)
        self._start_failures: list[Failure] = []
        self._was_ready = False
        self._next_id = 1

    # -- what the journal says at the start

    def replay(self, record: Record) -> None:
        """Take in a record of an earlier epoch; a commit of a done range counts for nothing."""
        if record["k"] == "commit":
            self._accept(record)
        elif record["k"] == "attempt":
            self._attempts[record["mb"]] = record["n"]

    def begin(self, started: int = 0) -> None:
        """Queue what is not done; call once, after the replay.

        Args:
            started: Workers, from slot 0 on, that were asked for before.
        """
        self.slots.take_over(started)
        begun = self._parts.keys() | self._attempts.keys()
        first = 0
        while first < self.mini_batches:
            stop = first + 1
            if self._done[first]:
                pass
            elif first in begun:
                self._queue_begun(first)
            else:
                while stop < self.mini_batches and not self._done[stop] and stop not in begun:
                    stop += 1
                self._backlog.add(Range(first, stop))
            first = stop

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do: all is committed, or the job has failed."""
        return self.failure is not None or self.counts.mini_batches_done == self.mini_batches

    # -- workers

    def slots_to_start(self) -> list[int]:
        """Return slots that want a worker now, a few at a time, and count them as under way."""
        return [] if self.is_over else self.slots.to_start(self._needed)

    def slots_to_release(self, now_s: float) -> list[int]:
        """Return slots whose worker is given back, and count them as stopped.

        None holds a lease: there are more workers than what is left could ever employ.
        """
        return [] if self.is_over else self.slots.to_release(self._needed, now_s)

    @property
    def _needed(self) -> int:
        """Workers that could still have something to do, were each lease given back at once."""
        return len(self._backlog) + self.slots.leased

    def on_placed(self, slot: int) -> None:
        """A worker has got a place on a node."""
        self.slots.place(slot)

    def on_ready(self, slot: int, *, has_standby: bool = False) -> None:
        """A worker is up; `has_standby`: a crash of its process would cost no start."""
        if self.workers[slot].state in ("waiting", "starting"):   # else it was just given back
            self._was_ready = True
            self.workers[slot].has_standby = has_standby
            self.slots.ready(slot)

    def on_start_failed(self, slot: int, failure: Failure) -> None:
        """A worker did not come up: try again, or give up if it is the code's own doing."""
        worker = self.workers[slot]
        if worker.state not in ("waiting", "starting"):   # it was just given back
            return
        self.slots.fall(slot, has_place=failure.kind != "Lost")
        worker.start_failures += 1
        self._start_failures.append(failure)
        if not self._was_ready:
            same = [f for f in self._start_failures if f.signature == failure.signature]
            is_certain = failure.is_own and len(same) >= min(2, len(self.workers))
            if is_certain or len(self._start_failures) >= STARTS_BEFORE_READY_MAX:
                self.failure = start_error(failure, self._script)
        elif worker.start_failures >= STARTS_MAX:
            self.slots.lose(slot)
            if self.slots.count("lost") == len(self.workers):
                self.failure = start_error(failure, self._script)

    def on_death(self, slot: int, failure: Failure, in_hand: int | None) -> list[Record]:
        """A worker died: blame the mini-batch in hand if the code did it, requeue the rest."""
        if self.workers[slot].state != "ready":   # it was just given back
            return []
        leases = self.slots.fall(slot, has_place=failure.kind != "Lost")
        self.counts.deaths += 1
        if failure.kind in FATAL_KINDS:
            self.failure = self.failure or JobError(failure.exception, code=failure.kind)
        if not leases:
            return []
        current = next((held for held in leases if held.holds(in_hand)), None)
        is_known = current is not None
        current = current or leases[0]
        for lease in reversed(leases):
            if lease is not current:
                self._backlog.requeue(lease)
        suspect = in_hand if is_known and in_hand is not None else current.range.first
        return self._split_at_death(slot, current, suspect, failure, is_known)

    # -- leases

    def leases(self) -> Iterator[tuple[int, Lease]]:
        """Yield leases and whose they are, until no worker has room or nothing waits."""
        while self._backlog:
            slot = self.slots.with_room(self._sizes.allowed(self._backlog.size))
            lease = None if slot is None else self.next_lease(slot)
            if slot is None or lease is None:
                return
            yield slot, lease

    def next_lease(self, slot: int) -> Lease | None:
        """Return the next lease for a worker, or None if it has enough or there is none."""
        worker, backlog = self.workers[slot], self._backlog
        allowed = self._sizes.allowed(backlog.size)
        if worker.state != "ready" or self.is_over or len(worker.leases) >= allowed:
            return None
        probe = self._take_probe(worker) if self._sameness.is_suspected else None
        if probe is not None:
            taken, attempt = probe
        elif backlog.retries and self._may_retry(worker, backlog.retries[0][0]):
            taken, attempt = backlog.retries.popleft()
        elif backlog.size:
            taken = backlog.take(self._sizes.next(backlog.size, worker.last_size))
            worker.last_size, attempt = taken.stop - taken.first, 1
        else:
            return None
        self.counts.retries += attempt > 1
        lease = Lease(self._next_id, taken, attempt, self._sizes.budget_s)
        self._next_id += 1
        self.slots.take(slot, lease)
        return lease

    def on_receipt(
        self, slot: int, receipt: Receipt, *, has_standby: bool = False
    ) -> list[Record]:
        """Take in a worker's answer; return the records that it makes, to be written in order."""
        lease = self.slots.give_back(slot, receipt.lease_id)
        if lease is None:   # of a worker that was given up: its leases went to others
            return []
        self.workers[slot].has_standby = has_standby
        self._sizes.measure(receipt)
        if receipt.rest is not None:
            self._backlog.put_back(receipt.rest)
        records = [record for done in receipt.done if (record := self._commit(done))]
        for failed in receipt.failed:
            attempt = lease.attempt if lease.range == failed.range else 1
            records += self._fail(slot, failed.range, failed.items, failed.failure, attempt)
        return records

    def on_seen(self, slot: int, in_hand: int | None) -> None:
        """A worker has this mini-batch in hand: what its lease has before it needs nobody more."""
        if in_hand is not None:
            self.slots.see(slot, in_hand)

    # -- what comes next

    def _may_retry(self, worker: Worker, one: Range) -> bool:
        """Tell whether the worker may try this now.

        What has ended a process waits a while for a worker whose standby is warm: in the meantime
        other work is done, and the restart that it will cost is hidden.
        """
        if _holds_part_of(worker, one):
            return False
        limit = PASSES_PER_WORKER * len(self.workers)
        if (
            one.first in self._suspects and not worker.has_standby and self._backlog.size
            and self._passes < limit
        ):
            self._passes += 1
            return False
        self._passes = 0
        return True

    def _take_probe(self, worker: Worker) -> tuple[Range, int] | None:
        """Return what of the probes may be tried now, if anything."""
        return self._backlog.take_one_of(
            self._sameness.probes, lambda one: not _holds_part_of(worker, one)
        )

    def _queue_begun(self, index: int) -> None:
        """Queue a mini-batch that was tried or done in part, to go on where it was."""
        done, items = self._parts.get(index, []), self._items_of(index)
        attempts = self._attempts.get(index, 0)
        if not done and (attempts <= self._max_retries or items == 1):
            attempt = min(attempts, self._max_retries) + 1
            self._backlog.retries.append((Range(index, index + 1), attempt))
            return
        for part, depth in missing_parts((0, items), done):
            attempt = self._max_retries + 1 + depth
            self._backlog.retries.append((Range(index, index + 1, part), attempt))

    # -- outcomes

    def _commit(self, done: Done) -> Record | None:
        failures = [
            failure_json(
                Range(index, index + 1, done.range.items), items, missing, 1,
                Failure("RowsMissing", f"run() returned {items - missing} rows for {items} items"),
            )
            for index, items, missing in done.missing
        ]
        record: Record = {
            "k": "commit", "r": done.range.to_json(), "seg": done.segment,
            "at": [done.start, done.stop], "rows": done.rows,
            "ok": done.items - sum(f["n"] for f in failures), "failures": failures,
            "files": [asdict(file) for file in done.files],
        }
        if done.columns:
            record["columns"] = to_json(done.columns)
        return self._accept(record)

    def _fail(
        self, slot: int, failed: Range, items: int, failure: Failure, attempt: int
    ) -> list[Record]:
        is_retried = not failed.is_part and attempt <= self._max_retries and not failure.is_whole
        is_final = failure.is_whole or (items == 1 and not is_retried)
        is_same = self._sameness.on_failure(
            slot, failed.first, failure, is_final=is_final, ready=self.slots.count("ready")
        )
        if is_same:
            self.failure = self.failure or same_failure_error(self._sameness.tried, failure)
        if is_final:
            poison = failure_json(failed, items, items, attempt, failure)
            record = self._accept({
                "k": "commit", "r": failed.to_json(), "seg": "", "at": [0, 0], "rows": 0, "ok": 0,
                "failures": [poison], "files": [],
            })
            return [record] if record else []
        if is_retried:
            self._backlog.retries.append((failed, attempt + 1))
        else:
            for part in reversed(halves(failed.items or (0, items))):
                half = Range(failed.first, failed.stop, part)
                self._backlog.retries.appendleft((half, attempt + 1))
        return [] if failed.is_part else [{"k": "attempt", "mb": failed.first, "n": attempt}]

    def _split_at_death(
        self, slot: int, lease: Lease, suspect: int, failure: Failure, is_known: bool
    ) -> list[Record]:
        one = lease.range if lease.range.is_part else Range(suspect, suspect + 1)
        if not lease.range.is_part and lease.range != one:
            if one.stop < lease.range.stop:
                self._backlog.put_back(Range(one.stop, lease.range.stop))
            if lease.range.first < one.first:
                self._backlog.put_back(Range(lease.range.first, one.first))
        attempt = lease.attempt if lease.range == one else 1
        if not (failure.is_own and is_known):
            self._kills[one.first] = self._kills.get(one.first, 0) + 1
            if self._kills[one.first] <= KILLS_MAX:
                self._backlog.requeue(Lease(0, one, attempt, 0))
                return []
        self._suspects.add(one.first)
        items = one.items[1] - one.items[0] if one.items else self._items_of(one.first)
        return self._fail(slot, one, items, failure, attempt)

    def _accept(self, record: Record) -> Record | None:
        """Count a commit record, unless its range is done: first commit wins."""
        done = Range.from_json(record["r"])
        if any(self._done[done.first : done.stop]):
            return None
        if done.items is None:
            self._done[done.first : done.stop] = b"\1" * (done.stop - done.first)
            self.counts.mini_batches_done += done.stop - done.first
        else:
            parts = self._parts.setdefault(done.first, [])
            if done.items in parts:
                return None
            parts.append(done.items)
            if sum(stop - start for start, stop in parts) == self._items_of(done.first):
                del self._parts[done.first]
                self._done[done.first] = 1
                self.counts.mini_batches_done += 1
        if record["ok"] and self._sameness.probes:
            self._sameness.on_success()
        self.counts.items_ok += record["ok"]
        self.counts.rows += record["rows"]
        for failure in record["failures"]:
            self._count_failure(failure)
        return record

    def _count_failure(self, failure: dict[str, Any]) -> None:
        self.counts.items_failed += failure["n"]
        error = self._failures.add(failure, self.counts.items_failed)
        self.failure = self.failure or error

    @property
    def first_failure(self) -> dict[str, Any] | None:
        """The failure of the lowest item known to have failed."""
        return self._failures.first

    def nothing_succeeded_error(self) -> JobError:
        """Return the error of a job in which no item succeeded, whatever its threshold."""
        return self._failures.nothing_succeeded_error(self.counts.items_failed)


def _holds_part_of(worker: Worker, one: Range) -> bool:
    """Tell whether the worker holds the same mini-batch: its hand could not tell which to blame."""
    return any(held.range.first == one.first for held in worker.leases)
