"""How far a job is, as a small file that is replaced often: readable while all else is down."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from inferay.engine.batch.dispatch import Counts, Dispatcher
from inferay.engine.batch.store import Store

NAME = "progress.json"

#: How often a running job's progress is written.
INTERVAL_S = 0.5


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
        items_per_s: Since this driver's first lease.
        seconds_left: At that rate, or None.
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
    items_per_s: float
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
        self._first_items = 0
        self._first_done = 0
        self._last_s = 0.0

    def begin(self, counts: Counts) -> None:
        """Count the rate from now on: the first lease is given; later calls change nothing."""
        if self._first_s is None:
            self._first_s = time.monotonic()
            self._first_items = counts.items_ok + counts.items_failed
            self._first_done = counts.mini_batches_done

    def write_if_due(
        self, state: str, dispatcher: Dispatcher, waiting_for: Callable[[], str | None]
    ) -> None:
        """Write the progress if `INTERVAL_S` has passed."""
        now_s = time.monotonic()
        if now_s - self._last_s < INTERVAL_S:
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
        items = counts.items_ok + counts.items_failed
        elapsed_s = now_s - (self._first_s or now_s)
        done = counts.mini_batches_done - self._first_done
        left = (dispatcher.mini_batches if dispatcher else 0) - counts.mini_batches_done
        progress = Progress(
            state=state, epoch=self._epoch, written_at=datetime.now(UTC).isoformat(),
            mini_batches=dispatcher.mini_batches if dispatcher else 0, counts=counts,
            workers_ready=dispatcher.slots.count("ready") if dispatcher else 0,
            workers_wanted=len(dispatcher.workers) if dispatcher else 0,
            items_per_s=(items - self._first_items) / elapsed_s if elapsed_s > 0 else 0.0,
            seconds_left=left * elapsed_s / done if done and elapsed_s > 0 else None,
            waiting_for=waiting_for,
            first_error=dispatcher.first_failure if dispatcher else None, error=error,
        )
        data = {"format": "inferay.progress", "version": 1, "pid": os.getpid(), **asdict(progress)}
        self._store.replace(NAME, json.dumps(data).encode())

    def run_facts(self, counts: Counts) -> dict[str, Any]:
        """Return what may differ between runs of the same job."""
        return {
            "epoch": self._epoch, "started_at": self._started_at.isoformat(),
            "ended_at": datetime.now(UTC).isoformat(), "retries": counts.retries,
            "worker_deaths": counts.deaths,
        }
