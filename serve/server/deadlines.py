"""The time that calls may take: one timer for all of them, since it is the same for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Expires what has not been discarded in time. Belongs to one event loop.

    A timer for each request costs more than all else that is done for its deadline.

    Args:
        timeout_s: For each, from when it was added.
        expire: Called once for each that is not discarded in time.
    """

    def __init__(self, timeout_s: float, expire: Callable[[T], None]) -> None:
        self._timeout_s = timeout_s
        self._expire = expire
        #: When each is due, the first one first: all have the same time.
        self._due_s: dict[T, float] = {}
        self._is_watched = False

    def add(self, one: T) -> None:
        """Begin its time."""
        loop = asyncio.get_running_loop()
        self._due_s[one] = loop.time() + self._timeout_s
        if not self._is_watched:
            self._is_watched = True
            loop.call_later(self._timeout_s, self._look, loop)

    def discard(self, one: T) -> None:
        """End its time; it is not expired any more."""
        self._due_s.pop(one, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        while self._due_s:
            one, due_s = next(iter(self._due_s.items()))
            if due_s > now_s:
                loop.call_later(due_s - now_s, self._look, loop)
                return
            del self._due_s[one]
            self._expire(one)
        self._is_watched = False
