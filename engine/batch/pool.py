"""Where workers run: the contract of a pool, and the pool of processes on this machine.

A pool is told to start, lease and stop; what happens comes back as events on one queue. The pool on
Ray (`ray_pool`) has the same contract. This one serves tests and small runs without Ray.
"""

from __future__ import annotations

import platform
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol

from inferay.engine.batch.host import WorkerHost
from inferay.engine.batch.messages import (
    Event,
    Failure,
    Lease,
    Receipt,
    ReceiptArrived,
    WorkerDied,
    WorkerPlaced,
    WorkerReady,
    WorkerSeen,
    WorkerSettings,
    WorkerStartFailed,
)

#: Where a pool puts its events.
Events = queue.SimpleQueue[Event]

#: Given a slot and how often it was started before, the settings of the worker to start.
SettingsOf = Callable[[int, int], WorkerSettings]


class Pool(Protocol):
    """Workers by slot. No call blocks but `close`."""

    def start(self, slot: int) -> None:
        """Start a worker; `WorkerReady` or `WorkerStartFailed` follows.

        `WorkerPlaced` comes before, once the worker has a place on a node.
        """

    def lease(self, slot: int, lease: Lease) -> None:
        """Hand a lease to a ready worker; `ReceiptArrived` or `WorkerDied` follows."""

    def kill(self, slot: int) -> None:
        """Kill a worker that does not answer; `WorkerDied` follows."""

    def release(self, slot: int) -> None:
        """Give a worker that holds no lease, and its place, back; no event of it follows."""

    def look(self, slot: int) -> None:
        """Look at a ready worker; `WorkerSeen` follows, unless it ends before."""

    def waiting_for(self) -> str | None:
        """Return in plain words what workers that do not start wait for, if anything."""

    def close(self) -> None:
        """End all workers; blocks until they are gone; no event follows; idempotent."""


class LocalPool:
    """A pool of processes on this machine, without Ray."""

    def __init__(self, settings_of: SettingsOf, events: Events) -> None:
        self._settings_of = settings_of
        self._events = events
        self._workers: dict[int, WorkerHost] = {}
        self._starts: dict[int, int] = {}
        self._leaving: list[threading.Thread] = []
        self._is_closed = False

    def start(self, slot: int) -> None:
        """See `Pool.start`."""
        number = self._starts.get(slot, 0)
        self._starts[slot] = number + 1
        is_up = has_failed = False

        def put(event: Event) -> None:
            if self._starts[slot] == number + 1 and not self._is_closed:
                self._events.put(event)

        def on_message(message: dict[str, Any]) -> None:
            nonlocal is_up, has_failed
            is_up = is_up or message["k"] == "ready"
            has_failed = has_failed or message["k"] == "start_failed"
            put(event_of(slot, message))

        def on_death(failure: Failure, in_hand: int | None) -> None:
            if is_up:
                put(WorkerDied(slot, failure, in_hand))
            elif not has_failed:
                put(WorkerStartFailed(slot, failure))

        put(WorkerPlaced(slot, platform.node()))
        self._workers.setdefault(slot, WorkerHost()).start(
            self._settings_of(slot, number), on_message=on_message, on_death=on_death
        )

    def lease(self, slot: int, lease: Lease) -> None:
        """See `Pool.lease`."""
        self._workers[slot].lease(lease)

    def kill(self, slot: int) -> None:
        """See `Pool.kill`."""
        self._workers[slot].kill()

    def release(self, slot: int) -> None:
        """See `Pool.release`."""
        self._starts[slot] += 1   # what it says from now on is not heard
        leaving = threading.Thread(target=self._workers.pop(slot).stop, name="worker-release")
        leaving.start()
        self._leaving.append(leaving)

    def look(self, slot: int) -> None:
        """See `Pool.look`."""
        seen = self._workers[slot].look()
        if seen is not None:
            self._events.put(WorkerSeen(slot, **seen))

    def waiting_for(self) -> str | None:
        """See `Pool.waiting_for`: processes wait for nothing."""
        return None

    def pids(self) -> list[int]:
        """Return the workers' process ids."""
        return [worker.pid for worker in self._workers.values() if worker.pid is not None]

    def close(self) -> None:
        """See `Pool.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        for worker in self._workers.values():
            worker.close_input()
        for worker in self._workers.values():
            worker.stop()
        for leaving in self._leaving:
            leaving.join()


def event_of(slot: int, message: dict[str, Any]) -> Event:
    """Return a worker's message as an event of its slot."""
    if message["k"] == "ready":
        return WorkerReady(slot, message["standby"])
    if message["k"] == "start_failed":
        return WorkerStartFailed(slot, Failure(**message["failure"]))
    if message["k"] == "died":
        return WorkerDied(slot, Failure(**message["failure"]), message["in_hand"])
    return ReceiptArrived(slot, Receipt.from_json(message["receipt"]), message["standby"])
