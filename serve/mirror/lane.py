"""The copies that go to one deployment: what waits, what is in flight, what became of the rest.

All of it belongs to one event loop; only `counts` and `is_busy` may be read from other threads.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from inferay.serve.mirror.connection import NOT_CONNECTED, Connection, Destination, Outcome
from inferay.serve.mirror.exchange import Exchange
from inferay.serve.mirror.pairs import Answered

#: Copies to one deployment at once. More only helps a shadow that is slower than the live one.
IN_FLIGHT_MAX = 16

#: Copies to one deployment that wait: a burst. A shadow that is slower does not catch up later.
QUEUE_MAX = 256

#: Bodies, of requests and answers, of the copies to one deployment that wait or are in flight.
QUEUE_BYTES_MAX = 64 << 20

#: The edge is on this machine, or next to it.
CONNECT_S = 2.0

#: Shorter than the edge keeps an idle connection: it never closes one under a copy.
IDLE_S = 4.0

#: Why a copy is not sent.
QUEUE_FULL = "queue_full"
TOO_LARGE = "too_large"


class Lane:
    """Sends to one deployment.

    Args:
        target: Its name.
        timeout_s: Of a copy, once it is sent.
        where: Says where to send copies now.
        record: Writes a pair.
    """

    def __init__(
        self, target: str, timeout_s: float, *, where: Callable[[], Destination | None],
        record: Callable[[Exchange, str, Answered], None],
    ) -> None:
        self.target = target
        self._timeout_s = timeout_s
        self._where = where
        self._record = record
        self._queue: deque[Exchange] = deque()
        self._offered = 0
        self._dropped: Counter[str] = Counter()
        self._held = 0
        self._held_bytes = 0
        self._in_flight = 0
        self._sent = 0
        self._answered = 0
        self._failed: Counter[str] = Counter()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    def offer(self, exchange: Exchange, refusal: str | None) -> None:
        """Send a copy, or queue it, or count why neither: for `refusal`, or for want of room."""
        self._offered += 1
        size_bytes = exchange.size_bytes
        if refusal is None and size_bytes > QUEUE_BYTES_MAX:
            refusal = TOO_LARGE
        elif refusal is None and (
            self._held >= QUEUE_MAX + IN_FLIGHT_MAX
            or self._held_bytes + size_bytes > QUEUE_BYTES_MAX
        ):
            refusal = QUEUE_FULL
        if refusal is not None:
            self._dropped[refusal] += 1
            return
        self._held += 1
        self._held_bytes += size_bytes
        self._queue.append(exchange)
        # After the live answer has left, which is written at the end of this turn of the loop.
        asyncio.get_running_loop().call_soon(self.pump)

    @property
    def is_busy(self) -> bool:
        """Whether copies wait or are in flight."""
        return self._held > 0

    def counts(self) -> dict[str, Any]:
        """Return what became of the copies so far."""
        return {
            "offered": self._offered, "dropped": dict(self._dropped), "sent": self._sent,
            "answered": self._answered, "failed": dict(self._failed),
        }

    def pump(self) -> None:
        """Send what waits, as far as there is room in flight."""
        to = self._where()
        while to is not None and self._queue and self._in_flight < IN_FLIGHT_MAX:
            self._in_flight += 1
            exchange = self._queue.popleft()
            connection = self._take_idle(to)
            if connection is not None:
                self._send(connection, exchange)
                continue
            task = asyncio.get_running_loop().create_task(self._connect_and_send(to, exchange))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def give_up(self, reason: str) -> None:
        """Drop what waits, and end what is in flight."""
        while self._queue:
            self._dropped[reason] += 1
            self._release(self._queue.popleft())
        for connection in [*self._idle, *self._busy]:
            connection.close()
        for task in self._connecting:
            task.cancel()
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _take_idle(self, to: Destination) -> Connection | None:
        """Return the connection that was used last; close those that are too old."""
        now_s = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            is_young = now_s - connection.idle_since_s < IDLE_S
            if connection.can_be_used and is_young and connection.to == to:
                return connection
            connection.close()
        return None

    async def _connect_and_send(self, to: Destination, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: Connection(to), to.host, to.port
                )
        except OSError:   # TimeoutError is one
            self._finish(exchange, Outcome(None, NOT_CONNECTED))
            return
        except asyncio.CancelledError:
            self._finish(exchange, Outcome(None, NOT_CONNECTED))
            raise
        self._send(connection, exchange)

    def _send(self, connection: Connection, exchange: Exchange) -> None:
        self._sent += 1
        self._busy.add(connection)
        done = partial(self._done, connection, exchange)
        connection.send(exchange, self.target, self._timeout_s, done)

    def _done(self, connection: Connection, exchange: Exchange, outcome: Outcome) -> None:
        self._busy.discard(connection)
        if connection.can_be_used:
            connection.idle_since_s = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        self._finish(exchange, outcome)

    def _finish(self, exchange: Exchange, outcome: Outcome) -> None:
        self._in_flight -= 1
        if outcome.failure is None:
            self._answered += 1
        else:
            self._failed[outcome.failure] += 1
        if outcome.answer is not None:
            self._record(exchange, self.target, outcome.answer)
        self._release(exchange)
        self.pump()

    def _release(self, exchange: Exchange) -> None:
        self._held_bytes -= exchange.size_bytes
        self._held -= 1
