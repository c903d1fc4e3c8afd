"""How many requests run at once, how many wait for it, and for how long."""

from __future__ import annotations

import asyncio
from collections import deque


class TooBusy(Exception):
    """Raised when a request found no place: too many wait already, or it has waited too long."""


class Gate:
    """Places for requests, given in the order in which they came. Belongs to one event loop.

    Args:
        places: Requests that run at once.
        waiting_max: Requests that wait at once; more are refused at once.
        wait_s: How long one waits at most.
    """

    def __init__(self, places: int, *, waiting_max: int, wait_s: float) -> None:
        self._free = places
        self._places = places
        self._waiting_max = waiting_max
        self._wait_s = wait_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._waiting_count = 0

    @property
    def running(self) -> int:
        """How many places are taken."""
        return self._places - self._free

    @property
    def waiting(self) -> int:
        """How many requests wait for one."""
        return self._waiting_count

    async def enter(self) -> None:
        """Take a place; waits for one. `leave` gives it back.

        Raises:
            TooBusy: There is none in time.
        """
        if self._free:   # then nobody waits: `leave` hands a place on
            self._free -= 1
            return
        if self._waiting_count >= self._waiting_max:
            raise TooBusy("too many requests wait already")
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(self._wait_s, _give_up, place)
        self._waiting.append(place)
        self._waiting_count += 1
        is_given = False
        try:
            await place
            is_given = True
        finally:
            timer.cancel()
            self._waiting_count -= 1
            if not is_given:
                self._withdraw(place)

    def leave(self) -> None:
        """Give a place back: to the first that waits, if there is one."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    def _withdraw(self, place: asyncio.Future[None]) -> None:
        """Stop waiting; the caller has gone, perhaps just when it was given its place."""
        try:
            self._waiting.remove(place)
        except ValueError:
            if not place.cancelled() and place.exception() is None:
                self.leave()


def _give_up(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_exception(TooBusy("no place was free in time"))
