"""Crash points: something happens before, in the middle of, or after a chosen write to a store.

Every write of the commit protocol goes through a store (claim, manifest parts, seal, segments,
journal, published files, `_SUCCESS.json`, cleanup), but for the files of user code, which are
moved aside in one call on local disk: each of these calls is a step, named by what it does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from inferay.engine.batch.staging import Staging
from inferay.engine.batch.store import ASIDE, LocalLog, LocalStore, MemoryStore

#: When something may happen: `torn` leaves half of what a log was to get, or a file without a name.
WHEN = ("before", "torn", "after")


class Crash(BaseException):
    """The end of the driver's process, as far as one process can play it."""


def crash() -> None:
    """End the driver's process."""
    raise Crash


class Steps:
    """Counts what is written, and does something at one of these steps; after a crash, nothing.

    Attributes:
        names: The steps so far.
        is_dead: Whether it was a crash.
    """

    def __init__(self, at: int, when: str, what: Callable[[], None]) -> None:
        self.at, self.when, self.what = at, when, what
        self.names: list[str] = []
        self.is_dead = False
        self._inside = threading.local()   # the journal has a thread of its own
        self._lock = threading.Lock()

    def step(
        self, name: str, call: Callable[[], Any], tear: Callable[[], Any] | None = None
    ) -> Any:
        """Make the call, which is a step unless it is part of one, or merely tells how far it is.

        Args:
            name: What it writes.
            call: Writes it.
            tear: Writes a part of it, if that can happen.
        """
        if getattr(self._inside, "step", False) or "progress.json" in name:
            return call()
        if self.is_dead:
            raise _death(name)
        with self._lock:
            number = len(self.names)
            self.names.append(name)
        self._inside.step = True
        try:
            if number != self.at or (self.when == "torn" and tear is None):
                return call()
            if self.when == "torn" and tear is not None:
                tear()
            answer = call() if self.when == "after" else None
            try:
                self.what()
            except Crash:
                self.is_dead = True
                if isinstance(answer, LocalLog):
                    answer.close()   # as the end of a process does
                raise _death(name) from None
            return answer if self.when == "after" else call()
        finally:
            self._inside.step = False


def _death(name: str) -> BaseException:
    """Return how a step ends in a dead process; a journal's thread is not the driver's."""
    is_journal = name == "append" or (
        name.startswith("create journal/") and threading.current_thread() != threading.main_thread()
    )
    return OSError("the process is dead") if is_journal else Crash()


@contextmanager
def steps(at: int, when: str, what: Callable[[], None]) -> Iterator[Steps]:
    """Do something at the step number `at`: one of `WHEN`."""
    counted = Steps(at, when, what)
    with pytest.MonkeyPatch.context() as patch:
        for method in ("create", "replace", "create_stream", "create_log", "remove", "delete"):
            _count(patch, counted, LocalStore, method)
        for method in ("create", "replace", "create_stream", "remove", "delete"):
            _count(patch, counted, MemoryStore, method)   # in the place of an object store
        take = Staging.take
        patch.setattr(Staging, "take", lambda self, mini_batch: counted.step(
            f"take {mini_batch}", lambda: take(self, mini_batch)
        ) if isinstance(self._store, LocalStore) else take(self, mini_batch))
        append = LocalLog.append
        patch.setattr(LocalLog, "append", lambda self, data: counted.step(
            "append", lambda: append(self, data), lambda: append(self, data[: len(data) // 2])
        ))
        yield counted


def _count(patch: pytest.MonkeyPatch, counted: Steps, cls: type, method: str) -> None:
    original = getattr(cls, method)

    def counting(self: Any, name: Any, *rest: Any) -> Any:
        def leave_a_part() -> None:
            path = self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{ASIDE}torn").write_bytes(b"a part")

        can_tear = cls is LocalStore and method.startswith(("create", "replace"))
        tear = leave_a_part if can_tear else None
        return counted.step(f"{method} {name}", lambda: original(self, name, *rest), tear)

    patch.setattr(cls, method, counting)
