"""The pool on Ray: an actor per worker, which holds the worker process on its node.

The actor is placement and supervision; the user's code is in the process below it. So a crash or a
hang of that code costs a process, not an actor, and its cause is known exactly.
"""

from __future__ import annotations

import contextlib
import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import ray

from inferay.engine.batch.host import WorkerHost
from inferay.engine.batch.messages import (
    Event,
    Failure,
    Lease,
    WorkerDied,
    WorkerPlaced,
    WorkerSeen,
    WorkerSettings,
    WorkerStartFailed,
)
from inferay.engine.batch.placement import WAITING_AFTER_S, WorkerResources, waiting_reason
from inferay.engine.batch.pool import Events, SettingsOf, event_of
from inferay.engine.batch.slots import LEASES_PER_WORKER
from inferay.engine.batch.units import Range

#: How often Ray is asked what is free while workers wait for a place.
FREE_LOOK_S = 2.0

#: How long actors get to end their worker processes before Ray kills them.
CLOSE_WAIT_S = 4.0


class WorkerActor:
    """Holds the processes of one worker; calls run beside each other."""

    def __init__(self) -> None:
        self._host = WorkerHost()
        self._is_up = False
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def place(self) -> str:
        """Return the node's name: an answer means that Ray has found room for the actor."""
        return platform.node()

    def start(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Take a process into service, in place of one that is gone; return its first message."""
        started: Future[dict[str, Any]] = Future()
        answers: dict[int, Future[dict[str, Any]]] = {}

        def on_message(message: dict[str, Any]) -> None:
            if not started.done():
                started.set_result(message)
            else:
                with self._lock:
                    answer = answers.pop(message["receipt"]["lease_id"])
                answer.set_result(message)

        def on_death(failure: Failure, in_hand: int | None) -> None:
            if not started.done():
                started.set_result({"k": "start_failed", "failure": asdict(failure)})
            died = {"k": "died", "failure": asdict(failure), "in_hand": in_hand}
            with self._lock:
                waiting = list(answers.values())
                answers.clear()
                self._is_up = False
            for answer in waiting:
                answer.set_result(died)

        with self._lock:
            self._answers = answers
            self._is_up = True
        self._host.start(
            WorkerSettings.from_dict(settings), on_message=on_message, on_death=on_death
        )
        return started.result()

    def lease(self, lease: dict[str, Any]) -> dict[str, Any]:
        """Hand the lease to the process; return its receipt, or how the process died."""
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            is_up = self._is_up
            if is_up:
                self._answers[lease["id"]] = answer
        if not is_up:
            failure = Failure("Killed", "the worker process had ended before", is_own=False)
            return {"k": "died", "failure": asdict(failure), "in_hand": None}
        self._host.lease(Lease(**lease | {"range": Range.from_json(lease["range"])}))
        return answer.result()

    def look(self) -> dict[str, Any] | None:
        """Return what the process has in hand and its memory, or None if it is gone."""
        return self._host.look() if self._is_up else None

    def stop(self) -> None:
        """End the processes; idempotent."""
        self._host.stop()


class RayPool:
    """Worker actors on the Ray cluster that this process is connected to."""

    def __init__(
        self, settings_of: SettingsOf, events: Events, resources: WorkerResources
    ) -> None:
        self._settings_of = settings_of
        self._events = events
        self._resources = resources
        # Three leases, a start, a look and a stop may be under way in one actor at once.
        custom = dict(resources.custom)
        self._actor_class = ray.remote(WorkerActor).options(
            num_cpus=resources.num_cpus, num_gpus=resources.num_gpus,
            memory=custom.pop("memory", None), resources=custom or None,
            max_restarts=0, max_task_retries=0, max_concurrency=LEASES_PER_WORKER + 3,
        )
        self._actors: dict[int, Any] = {}   # handles; Ray has no type for their methods
        self._starts: dict[int, int] = {}
        self._unplaced: dict[int, tuple[int, float]] = {}   # which start, and since when
        self._waiting_for: tuple[float, str | None] = (0.0, None)
        self._is_closed = False

    def start(self, slot: int) -> None:
        """See `Pool.start`."""
        number = self._starts.get(slot, 0)
        self._starts[slot] = number + 1
        if slot not in self._actors:
            self._actors[slot] = self._actor_class.remote()
            self._unplaced[slot] = (number, time.monotonic())
            placed = self._actors[slot].place.remote().future()
            placed.add_done_callback(lambda future: self._on_placed(slot, number, future))
        reference = self._actors[slot].start.remote(asdict(self._settings_of(slot, number)))
        self._when_done(reference, slot, number, lambda f: WorkerStartFailed(slot, f))

    def lease(self, slot: int, lease: Lease) -> None:
        """See `Pool.lease`."""
        message = {**asdict(lease), "range": lease.range.to_json()}
        actor = self._actors.get(slot)
        if actor is None:   # its death is told already
            return
        reference = actor.lease.remote(message)
        number = self._starts[slot] - 1
        self._when_done(reference, slot, number, lambda f: WorkerDied(slot, f, None))

    def kill(self, slot: int) -> None:
        """See `Pool.kill`: the actor and its node may be frozen, so Ray ends it."""
        actor = self._actors.get(slot)
        if actor is not None:   # else its death is told already
            ray.kill(actor)

    def release(self, slot: int) -> None:
        """See `Pool.release`: Ray ends an actor that nobody refers to once its calls are done."""
        self._starts[slot] += 1   # what it says from now on is not heard
        actor = self._actors.pop(slot, None)
        if actor is None:   # it went with its node
            return
        if self._unplaced.pop(slot, None) is None:
            actor.stop.remote()
        else:
            ray.kill(actor)

    def look(self, slot: int) -> None:
        """See `Pool.look`."""
        actor = self._actors.get(slot)
        if actor is None:   # its death is told already
            return
        number = self._starts[slot]

        def on_done(future: Future[dict[str, Any] | None]) -> None:
            seen = None if future.exception() else future.result()
            if seen is not None and self._starts[slot] == number and not self._is_closed:
                self._events.put(WorkerSeen(slot, **seen))

        actor.look.remote().future().add_done_callback(on_done)

    def waiting_for(self) -> str | None:
        """See `Pool.waiting_for`: what Ray has no room for."""
        now_s = time.monotonic()
        waits = [since_s for _, since_s in list(self._unplaced.values())]
        waited_s = now_s - min(waits, default=now_s)
        if waited_s < WAITING_AFTER_S:
            return None
        looked_s, reason = self._waiting_for
        if now_s - looked_s >= FREE_LOOK_S:
            nodes: list[dict[str, Any]] = ray.nodes()   # type: ignore[no-untyped-call]
            reason = waiting_reason(
                self._resources, waiting=len(waits), waited_s=waited_s,
                free=ray.available_resources(),   # type: ignore[no-untyped-call]
                nodes=[node["Resources"] for node in nodes if node["Alive"]],
            )
            self._waiting_for = (now_s, reason)
        return reason

    def close(self) -> None:
        """See `Pool.close`."""
        if self._is_closed:
            return
        self._is_closed = True
        unplaced = [self._actors.pop(slot) for slot in list(self._unplaced) if slot in self._actors]
        stops = {actor.stop.remote(): actor for actor in self._actors.values()}
        if stops:
            stopped, _ = ray.wait(list(stops), num_returns=len(stops), timeout=CLOSE_WAIT_S)
            for stop in stopped:
                del stops[stop]
        self._actors.clear()   # Ray ends those that have stopped
        for actor in [*unplaced, *stops.values()]:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(actor)

    def _on_placed(self, slot: int, number: int, future: Future[str]) -> None:
        if self._unplaced.get(slot, (None,))[0] != number:   # it was given back
            return
        del self._unplaced[slot]
        if future.exception() is None and not self._is_closed:
            self._events.put(WorkerPlaced(slot, future.result()))

    def _when_done(
        self, reference: Any, slot: int, number: int, lost: Callable[[Failure], Event]
    ) -> None:
        def on_done(future: Future[dict[str, Any]]) -> None:
            try:
                event = event_of(slot, future.result())
            except ray.exceptions.RayError as error:
                event = lost(Failure("Lost", _first_line(error), is_own=False))
                if self._starts[slot] == number + 1:
                    self._actors.pop(slot, None)
            is_current = self._starts[slot] == number + 1
            if is_current and not self._is_closed:
                if isinstance(event, (WorkerDied, WorkerStartFailed)):
                    self._starts[slot] = number + 2   # a second lease's answer is no second death
                self._events.put(event)

        reference.future().add_done_callback(on_done)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
