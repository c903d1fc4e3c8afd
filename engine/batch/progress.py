"""How far a job is, as a small file that is replaced often: readable while all else is down."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from inferay.engine.batch.dispatch import Counts, Dispatcher
from inferay.engine.batch.store import Store
from inferay.engine.batch.telemetry import Telemetry

NAME = "progress.json"

#: How often a running job's progress is written; less often where it takes a request.
INTERVAL_S = 0.5
INTERVAL_REMOTE_S = 2.0

#: "Now" is the mean of so long: long enough for leases, whose receipts come in bursts.
WINDOW_S = 10.0


@dataclass(frozen=True)
class Progress:
    """A look at a job.

    Attributes:
        state: `Preparing`, `Running`, `Finalizing`, or how it ended.
        epoch: Which driver wrote it.
        written_at: When, in UTC (ISO 8601).
        mini_batches: All of them, once they are known.
        counts: How far it came.
        workers_ready: Workers that take leases.
        workers_wanted: Workers that the job would use.
        percent: Of the mini-batches that are done.
        items_per_s: Since this driver's first lease.
        items_per_s_now: Over the last `WINDOW_S`.
        seconds: Since this driver's first lease.
        seconds_left: At the rate of the last `WINDOW_S`, or of all the time, or None.
        waiting_for: What workers that do not start wait for.
        first_error: The failure of the lowest item known to have failed.
        error: Why the job did not complete.
    """

    state: str
    epoch: int
    written_at: str
    mini_batches: int
    counts: Counts
    workers_ready: int
    workers_wanted: int
    percent: float
    items_per_s: float
    items_per_s_now: float
    seconds: float
    seconds_left: float | None
    waiting_for: str | None
    first_error: dict[str, Any] | None
    error: dict[str, Any] | None


class ProgressWriter:
    """Writes the progress of one epoch."""

    def __init__(self, store: Store, epoch: int) -> None:
        self._store = store
        self._epoch = epoch
        self._started_at = datetime.now(UTC)
        self._first_s: float | None = None
        self._first = (0.0, 0, 0)
        self._window: deque[tuple[float, int, int]] = deque()   # seconds, items, mini-batches
        self._telemetry: Telemetry | None = None
        self._last_s = 0.0

    def watch(self, telemetry: Telemetry) -> None:
        """Tell of these workers too from now on."""
        self._telemetry = telemetry

    def begin(self, counts: Counts) -> None:
        """Count the rate from now on: the first lease is given; later calls change nothing."""
        if self._first_s is None:
            self._first_s = time.monotonic()
            self._first = (self._first_s, *_amounts(counts))
            self._window.append(self._first)

    def write_if_due(
        self, state: str, dispatcher: Dispatcher, waiting_for: Callable[[], str | None]
    ) -> None:
        """Write the progress if it was not written lately."""
        now_s = time.monotonic()
        if now_s - self._last_s < (INTERVAL_S if self._store.can_append else INTERVAL_REMOTE_S):
            return
        is_waiting = dispatcher.slots.count("waiting", "starting") > 0
        self.write(state, dispatcher, waiting_for=waiting_for() if is_waiting else None)

    def write(
        self, state: str, dispatcher: Dispatcher | None = None, *,
        waiting_for: str | None = None, error: dict[str, Any] | None = None,
    ) -> None:
        """Write the progress now."""
        now_s = time.monotonic()
        self._last_s = now_s
        counts = dispatcher.counts if dispatcher else Counts()
        mini_batches = dispatcher.mini_batches if dispatcher else 0
        rates = self._rates(counts, now_s)
        left = mini_batches - counts.mini_batches_done
        progress = Progress(
            state=state, epoch=self._epoch, written_at=datetime.now(UTC).isoformat(),
            mini_batches=mini_batches, counts=counts,
            workers_ready=dispatcher.slots.count("ready") if dispatcher else 0,
            workers_wanted=len(dispatcher.workers) if dispatcher else 0,
            percent=round(100 * counts.mini_batches_done / mini_batches, 2) if mini_batches else 0,
            items_per_s=rates.items_per_s, items_per_s_now=rates.items_per_s_now,
            seconds=now_s - (self._first_s or now_s),
            seconds_left=left / rates.mini_batches_per_s if rates.mini_batches_per_s else None,
            waiting_for=waiting_for,
            first_error=dispatcher.first_failure if dispatcher else None, error=error,
        )
        data = {"format": "inferay.progress", "version": 1, "pid": os.getpid(), **asdict(progress)}
        if self._telemetry is not None:
            data |= self._telemetry.facts(now_s)
        self._store.replace(NAME, json.dumps(data).encode())

    def _rates(self, counts: Counts, now_s: float) -> _Rates:
        if self._first_s is None:
            return _Rates(0.0, 0.0, 0.0)
        here = (now_s, *_amounts(counts))
        while len(self._window) > 1 and self._window[1][0] <= now_s - WINDOW_S:
            self._window.popleft()
        items_per_s, overall = _rate(self._first, here)
        items_per_s_now, now = _rate(self._window[0], here)
        self._window.append(here)
        return _Rates(items_per_s, items_per_s_now, now or overall)

    def run_facts(self, counts: Counts) -> dict[str, Any]:
        """Return what may differ between runs of the same job."""
        return {
            "epoch": self._epoch, "started_at": self._started_at.isoformat(),
            "ended_at": datetime.now(UTC).isoformat(), "retries": counts.retries,
            "worker_deaths": counts.deaths,
        }


@dataclass(frozen=True)
class _Rates:
    items_per_s: float
    items_per_s_now: float
    mini_batches_per_s: float


def _amounts(counts: Counts) -> tuple[int, int]:
    return counts.items_ok + counts.items_failed, counts.mini_batches_done


def _rate(
    before: tuple[float, int, int], after: tuple[float, int, int]
) -> tuple[float, float]:
    """Return items and mini-batches per second between two moments."""
    passed_s = after[0] - before[0]
    if passed_s <= 0:
        return 0.0, 0.0
    return (after[1] - before[1]) / passed_s, (after[2] - before[2]) / passed_s
