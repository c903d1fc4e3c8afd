"""The loop of a driver while its job is scored: give leases, take answers in, journal them.

What follows from each event is `dispatch`'s to say; here is its order, and the clock.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass

from inferay.engine.batch.dispatch import Dispatcher
from inferay.engine.batch.formats.so_far import ColumnsSoFar
from inferay.engine.batch.journal import Record
from inferay.engine.batch.journal_writer import JournalWriter
from inferay.engine.batch.messages import (
    Event,
    JournalFailed,
    ReceiptArrived,
    WorkerDied,
    WorkerPlaced,
    WorkerReady,
    WorkerStartFailed,
)
from inferay.engine.batch.pool import Events, Pool
from inferay.engine.batch.progress import ProgressWriter
from inferay.engine.batch.telemetry import Telemetry

#: How long the loop waits for an event before it looks at progress and cancellation.
TICK_S = 0.1

#: How long a worker may be silent beyond what its leases allow before it is given up: longer
#: than Ray takes to notice a dead node, so that a death is seen as what it is.
SILENCE_S = 60.0

#: How much longer where files are fetched: the largest of a mini-batch, from a slow store.
FETCH_S = 3600.0

#: How often silent workers are looked for: it takes a look at every busy one.
SILENCE_LOOK_S = 1.0


@dataclass
class _Leased:
    deadline_s: float
    leases: int = 0


class ScoringLoop:
    """Scores what a dispatcher has left; on one thread; `run` is called once.

    Attributes:
        first_lease_s: When the first lease was given (monotonic clock), or None.
    """

    def __init__(
        self, dispatcher: Dispatcher, events: Events, writer: JournalWriter,
        progress: ProgressWriter, columns: ColumnsSoFar, *, timeout_s: float, is_fetching: bool,
    ) -> None:
        self.first_lease_s: float | None = None
        self._dispatcher = dispatcher
        self._events = events
        self._writer = writer
        self._progress = progress
        self._columns = columns
        self._timeout_s = timeout_s
        self._silence_s = SILENCE_S + (FETCH_S if is_fetching else 0.0)
        self._telemetry = Telemetry(dispatcher.slots)
        for slot in dispatcher.slots.slots("waiting"):   # asked for before
            self._telemetry.started(slot)
        self._busy: dict[int, _Leased] = {}
        self._looked_s = 0.0

    def run(self, pool: Pool, check_stop: Callable[[], None]) -> None:
        """Score until nothing is left; blocks.

        Args:
            pool: The workers.
            check_stop: Called in each turn; raises to end the loop.

        Raises:
            InferayError: The job has failed.
        """
        self._progress.watch(self._telemetry)
        while not self._dispatcher.is_over:
            self._telemetry.advance(time.monotonic())
            self._tend_workers(pool)
            self._give_leases(pool)
            self._progress.write_if_due("Running", self._dispatcher, pool.waiting_for)
            check_stop()
            self._give_up_silent(pool)
            for event in self._wait():
                records = self._take_in(event)
                for record in records:
                    self._writer.append(record)
                for record in records:
                    self._columns.take(record)
        if self._dispatcher.failure is not None:
            raise self._dispatcher.failure

    def _tend_workers(self, pool: Pool) -> None:
        now_s = time.monotonic()
        for slot in self._dispatcher.slots_to_start():
            self._telemetry.started(slot)
            pool.start(slot)
        for slot in self._dispatcher.slots_to_release(now_s):
            self._telemetry.left(slot)
            pool.release(slot)
        for slot in self._telemetry.to_look_at(now_s):
            pool.look(slot)

    def _give_leases(self, pool: Pool) -> None:
        now_s = time.monotonic()
        for slot, lease in self._dispatcher.leases():
            self.first_lease_s = self.first_lease_s or now_s
            self._progress.begin(self._dispatcher.counts)
            allowed_s = lease.budget_s + self._timeout_s + self._silence_s
            busy = self._busy.setdefault(slot, _Leased(now_s))
            busy.deadline_s = max(busy.deadline_s, now_s) + allowed_s
            busy.leases += 1
            self._telemetry.leased(slot, now_s)
            pool.lease(slot, lease)

    def _give_up_silent(self, pool: Pool) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < SILENCE_LOOK_S:
            return
        self._looked_s = now_s
        for slot, busy in list(self._busy.items()):
            if now_s > busy.deadline_s:
                del self._busy[slot]
                pool.kill(slot)

    def _wait(self) -> list[Event]:
        try:
            events = [self._events.get(timeout=TICK_S)]
        except queue.Empty:
            return []
        while True:
            try:
                events.append(self._events.get_nowait())
            except queue.Empty:
                return events

    def _take_in(self, event: Event) -> list[Record]:
        if isinstance(event, JournalFailed):
            raise event.error
        if isinstance(event, ReceiptArrived):
            return self._take_receipt(event)
        if isinstance(event, WorkerDied):
            self._busy.pop(event.slot, None)
            self._telemetry.died(event.slot, event.failure)
            return self._dispatcher.on_death(event.slot, event.failure, event.in_hand)
        if isinstance(event, WorkerStartFailed):
            self._telemetry.died(event.slot, event.failure)
            self._dispatcher.on_start_failed(event.slot, event.failure)
        elif isinstance(event, WorkerReady):
            self._dispatcher.on_ready(event.slot, has_standby=event.has_standby)
        elif isinstance(event, WorkerPlaced):
            self._telemetry.placed(event.slot, event.node)
            self._dispatcher.on_placed(event.slot)
        else:
            self._telemetry.seen(event, time.monotonic())
            self._dispatcher.on_seen(event.slot, event.in_hand)
        return []

    def _take_receipt(self, event: ReceiptArrived) -> list[Record]:
        busy = self._busy.get(event.slot)
        if busy is not None:
            busy.leases -= 1
            if busy.leases == 0:
                del self._busy[event.slot]
        self._telemetry.answered(event.slot, event.receipt, time.monotonic())
        return self._dispatcher.on_receipt(
            event.slot, event.receipt, has_standby=event.has_standby
        )
