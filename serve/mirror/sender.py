"""Sends copies of live requests to other deployments, on a thread of its own.

What becomes of a copy changes nothing for the live request: that one is answered already, what
waits has a limit, and what does not fit is counted and forgotten. No copy is sent twice.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from typing import Any

import uvloop

from inferay.serve.mirror.connection import Destination
from inferay.serve.mirror.exchange import Exchange
from inferay.serve.mirror.lane import Lane
from inferay.serve.mirror.pairs import Answered, PairLog

_log = logging.getLogger("inferay.mirror")

#: Between two writes of the counts, for who reads the log.
COUNT_S = 1.0

#: Between two complaints about the disk.
COMPLAIN_S = 60.0

#: Between two looks whether what is in flight has ended.
CLOSE_POLL_S = 0.01

#: Between two looks at what waits, while copies are offered: waking this thread for each of them
#: costs the live requests more than the copies themselves do.
LOOK_S = 0.005

#: Why a copy is not sent.
NO_EDGE = "no_edge"
CLOSING = "closing"


class Mirror:
    """Takes finished live requests, and sends the copies that the edge has drawn for them.

    Its thread starts with the first copy. `offer` belongs to one thread; the rest may be called
    from any.

    Args:
        timeout_s: Of a copy: the longest that a request may take, its wait, and a margin.
        log: Where pairs are written; None keeps none. It belongs to the mirror from now on.
    """

    def __init__(self, *, timeout_s: float, log: PairLog | None = None) -> None:
        self._timeout_s = timeout_s
        self._log = log
        self._lanes: dict[str, Lane] = {}
        self._counts_written: dict[str, dict[str, Any]] = {}
        self._to: Destination | None = None
        self._is_closing = False
        self._is_woken = False
        self._offered_before = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._complained_s = -COMPLAIN_S
        self._unlogged: Counter[str] = Counter()

    def point_to(self, host: str, port: int, secret: str) -> None:
        """Send copies there from now on; those that are in flight go on."""
        self._to = Destination(host, port, secret)

    def offer(self, exchange: Exchange) -> None:
        """Queue the copies of a request that is answered; never blocks and never raises."""
        refusal = CLOSING if self._is_closing else NO_EDGE if self._to is None else None
        for target in exchange.targets:
            lane = self._lanes.get(target)
            if lane is None:
                lane = self._lanes[target] = Lane(
                    target, self._timeout_s, where=lambda: self._to, record=self._record
                )
            lane.offer(exchange, refusal)
        if self._is_woken or self._is_closing or not exchange.targets:
            return
        self._is_woken = True
        try:
            self._wake()
        except RuntimeError as error:   # no more threads; or it has been closed at this moment
            self._is_closing = True
            _log.error("no copies of requests are sent any more: %s", error)

    def counters(self) -> dict[str, dict[str, Any]]:
        """Return what became of the copies so far, by deployment."""
        return {lane.target: lane.counts() for lane in list(self._lanes.values())}

    def close(self, *, timeout_s: float = 0.0) -> None:
        """Take no more, let what is queued be sent, and end; blocks, idempotent.

        Args:
            timeout_s: After this, what is not answered is given up.
        """
        self._is_closing = True
        if self._loop is None or not self._thread.is_alive():
            return
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s and any(lane.is_busy for lane in self._all()):
            time.sleep(CLOSE_POLL_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _all(self) -> list[Lane]:
        return list(self._lanes.values())   # at once: the other thread may add one

    def _wake(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._pump)
            return
        self._loop = uvloop.new_event_loop()
        self._loop.call_soon(self._pump)
        self._loop.call_soon(self._count)
        self._thread.start()

    # What follows runs on the mirror's own thread.

    def _run(self) -> None:
        assert self._loop is not None
        self._loop.run_forever()
        for lane in self._all():
            self._loop.run_until_complete(lane.give_up(CLOSING))
        self._write_counts()
        self._loop.close()
        if self._log is not None:
            self._log.close()

    def _pump(self) -> None:
        """Send what waits, and look again soon; after nothing was offered, sleep until woken."""
        assert self._loop is not None
        offered = sum(lane.offered for lane in self._all())
        if offered != self._offered_before:
            self._offered_before = offered
            self._loop.call_later(LOOK_S, self._pump)
        else:
            self._is_woken = False   # first: what is offered from now on wakes this once more
        for lane in self._all():
            lane.pump()

    def _count(self) -> None:
        assert self._loop is not None
        self._write_counts()
        self._loop.call_later(COUNT_S, self._count)

    def _write_counts(self) -> None:
        for lane in self._all():
            counts = lane.counts() | {"unlogged": self._unlogged[lane.target]}
            if self._log is None or counts == self._counts_written.get(lane.target):
                continue
            try:
                self._log.count(lane.target, counts)
                self._counts_written[lane.target] = counts
            except OSError as error:
                self._complain(error)

    def _record(self, exchange: Exchange, target: str, answer: Answered) -> None:
        if self._log is None:
            return
        try:
            self._log.append(exchange, target, answer)
        except OSError as error:
            self._unlogged[target] += 1
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        now_s = time.monotonic()
        if now_s - self._complained_s >= COMPLAIN_S:
            self._complained_s = now_s
            _log.error("pairs of live and shadow answers cannot be written: %s", error)
