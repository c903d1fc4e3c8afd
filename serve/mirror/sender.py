"""Sends copies of live requests to other deployments, on the event loop that answers these.

A thread of its own would cost the live requests more than the copies do: at each step it takes the
interpreter's lock from them. Only the disk has a thread.

What becomes of a copy changes nothing for the live request: that one is answered already, what
waits has a limit, and what does not fit is counted and forgotten. No copy is sent twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from inferay.serve.mirror.connection import Destination
from inferay.serve.mirror.exchange import Exchange
from inferay.serve.mirror.lane import Lane
from inferay.serve.mirror.pairs import Answered, PairLog
from inferay.serve.mirror.writer import PairWriter

_log = logging.getLogger("inferay.mirror")

#: Between two looks whether what is in flight has ended.
CLOSE_POLL_S = 0.01

#: For the event loop to end what is left, and for the disk to take it.
END_S = 5.0

#: Why a copy is not sent.
NO_EDGE = "no_edge"
CLOSING = "closing"


class Mirror:
    """Takes finished live requests, and sends the copies that the edge has drawn for them.

    `offer` belongs to the event loop that the copies are sent on; the rest may be called from any
    thread, `close` from any other.

    Args:
        timeout_s: Of a copy: the longest that a request may take, its wait, and a margin.
        log: Where pairs are written; None keeps none. It belongs to the mirror from now on.
    """

    def __init__(self, *, timeout_s: float, log: PairLog | None = None) -> None:
        self._timeout_s = timeout_s
        self._writer = None if log is None else PairWriter(log, self.counters)
        self._lanes: dict[str, Lane] = {}
        self._to: Destination | None = None
        self._is_closing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def point_to(self, host: str, port: int, secret: str) -> None:
        """Send copies there from now on; those that are in flight go on."""
        self._to = Destination(host, port, secret)

    def offer(self, exchange: Exchange) -> None:
        """Send the copies of a request that is answered; never blocks and never raises."""
        if not exchange.targets:
            return
        if self._loop is None:
            self._begin(asyncio.get_running_loop())
        refusal = CLOSING if self._is_closing else NO_EDGE if self._to is None else None
        for target in exchange.targets:
            lane = self._lanes.get(target)
            if lane is None:
                lane = self._lanes[target] = Lane(
                    target, self._timeout_s, where=lambda: self._to, record=self._record
                )
            lane.offer(exchange, refusal)

    def counters(self) -> dict[str, dict[str, Any]]:
        """Return what became of the copies so far, by deployment."""
        return {lane.target: lane.counts() for lane in self._all()}

    def close(self, *, timeout_s: float = 0.0) -> None:
        """Take no more, let what is queued be sent, and end; blocks, idempotent.

        The event loop runs on until this returns.

        Args:
            timeout_s: After this, what is not answered is given up.
        """
        has_begun, was_closing = self._loop is not None, self._is_closing
        self._is_closing = True
        if not has_begun or was_closing:
            return
        assert self._loop is not None
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s and any(lane.is_busy for lane in self._all()):
            time.sleep(CLOSE_POLL_S)
        asyncio.run_coroutine_threadsafe(self._give_up(), self._loop).result(END_S)
        if self._writer is not None:
            self._writer.close(timeout_s=END_S)

    def _all(self) -> list[Lane]:
        return list(self._lanes.values())   # at once: the event loop may add one

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        if self._writer is None:
            return
        try:
            self._writer.start()
        except RuntimeError as error:   # the user's code has taken all threads there may be
            self._writer = None
            _log.error("pairs of live and shadow answers are not written: %s", error)

    async def _give_up(self) -> None:
        for lane in self._all():
            await lane.give_up(CLOSING)

    def _record(self, exchange: Exchange, target: str, answer: Answered) -> None:
        if self._writer is not None:
            self._writer.offer(exchange, target, answer)
