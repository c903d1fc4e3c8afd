"""The processes of one slot: the one that takes leases and, while its code crashes, a standby.

A standby has run `init()` when the next crash comes, so that the restart costs nothing. There is
one at most, only after a crash of the code's own doing, and only where it has room: it doubles the
memory that `init()` takes, so a worker on a GPU has none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from inferay.engine.batch.memory import RESERVE_BYTES_MIN, available_bytes
from inferay.engine.batch.messages import Failure, Lease, WorkerSettings
from inferay.engine.batch.process import WorkerProcess

#: A standby ends when no crash has come for so long: a crash a minute costs little without it.
STANDBY_S = 60.0

OnMessage = Callable[[dict[str, Any]], None]
OnDeath = Callable[[Failure, int | None], None]


class WorkerHost:
    """Holds at most one process in service, and at most one standby."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: _Hosted | None = None
        self._standby: _Hosted | None = None
        self._crashed_s: float | None = None   # when the code last ended its process
        self._init_bytes = 0

    def start(
        self, settings: WorkerSettings, *, on_message: OnMessage, on_death: OnDeath
    ) -> None:
        """Take a process into service, in place of one that is gone: the standby or a new one.

        `on_message` and `on_death` are as a `WorkerProcess`'s, but may be called from this call. A
        message has `standby`, whether a crash would now cost no start.
        """
        with self._lock:
            standby, self._standby = self._standby, None
            is_usable = standby is not None and not standby.has_failed
            active = standby if standby is not None and is_usable else _Hosted(settings)
            if self._wants_standby(settings):
                self._standby = _Hosted(replace(settings, segment=f"{settings.segment}-standby"))
            self._active = active

        def hear(message: dict[str, Any]) -> None:
            if message["k"] == "ready":
                self._init_bytes = active.process.used_bytes
            on_message({**message, "standby": self._has_standby})

        def mourn(failure: Failure, in_hand: int | None) -> None:
            if failure.is_own:
                self._crashed_s = time.monotonic()
            on_death(failure, in_hand)

        active.take_into_service(hear, mourn)

    @property
    def pid(self) -> int | None:
        """Process id of what is in service, alive or dead; None before the first start."""
        return self._active.process.pid if self._active else None

    def lease(self, lease: Lease) -> None:
        """Hand a lease to the process in service."""
        self._drop_idle_standby()
        if self._active is not None:
            self._active.process.lease(lease)

    def look(self) -> dict[str, Any] | None:
        """Return what the process in service does; see `WorkerProcess.look`."""
        return None if self._active is None else self._active.process.look()

    def kill(self) -> None:
        """Kill the process in service; idempotent."""
        if self._active is not None:
            self._active.process.kill()

    def close_input(self) -> None:
        """Tell the processes that no lease follows; see `WorkerProcess.close_input`."""
        for hosted in self._both():
            hosted.process.close_input()

    def stop(self) -> None:
        """End the processes; blocks as `WorkerProcess.stop` does; idempotent."""
        self.close_input()
        for hosted in self._both():
            hosted.process.stop()

    # -- inside

    def _both(self) -> list[_Hosted]:
        return [hosted for hosted in (self._active, self._standby) if hosted is not None]

    @property
    def _has_standby(self) -> bool:
        return self._standby is not None and self._standby.is_ready

    def _wants_standby(self, settings: WorkerSettings) -> bool:
        if self._crashed_s is None or not settings.keeps_standby:
            return False
        if time.monotonic() - self._crashed_s > STANDBY_S:
            return False
        # The process that takes over may have to start as well.
        return available_bytes() - 2 * self._init_bytes > RESERVE_BYTES_MIN

    def _drop_idle_standby(self) -> None:
        if self._standby is None or self._crashed_s is None:
            return
        if time.monotonic() - self._crashed_s > STANDBY_S:
            with self._lock:
                standby, self._standby = self._standby, None
            if standby is not None:
                standby.process.kill()


class _Hosted:
    """A process whose words are kept until it is taken into service."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._lock = threading.Lock()
        self._kept: list[dict[str, Any]] = []
        self._death: tuple[Failure, int | None] | None = None
        self._listeners: tuple[OnMessage, OnDeath] | None = None
        self.process = WorkerProcess(settings, on_message=self._hear, on_death=self._mourn)

    @property
    def is_ready(self) -> bool:
        """Whether it has run `init()` and waits for service."""
        return [message["k"] for message in self._kept] == ["ready"] and self._death is None

    @property
    def has_failed(self) -> bool:
        """Whether it came to its end without service; a later start says why, if it is the rule."""
        return self._death is not None or any(m["k"] != "ready" for m in self._kept)

    def take_into_service(self, on_message: OnMessage, on_death: OnDeath) -> None:
        with self._lock:
            for message in self._kept:
                on_message(message)
            if self._death is not None:
                on_death(*self._death)
            self._listeners = on_message, on_death

    def _hear(self, message: dict[str, Any]) -> None:
        with self._lock:
            if self._listeners is None:
                self._kept.append(message)
                return
        self._listeners[0](message)

    def _mourn(self, failure: Failure, in_hand: int | None) -> None:
        with self._lock:
            if self._listeners is None:
                self._death = failure, in_hand
                return
        self._listeners[1](failure, in_hand)
