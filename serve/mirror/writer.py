"""Writes pairs, and what became of copies, on a thread of its own: a slow disk holds up nobody."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from inferay.serve.mirror.exchange import Exchange
from inferay.serve.mirror.pairs import Answered, PairLog

_log = logging.getLogger("inferay.mirror")

#: Between two writes. Each waits for the interpreter's lock, which the live requests need.
WRITE_S = 0.5

#: Pairs that wait to be written, and the bodies of their live requests: what comes in two such
#: times at 5,000 copies per second; more means that the disk hangs.
PAIRS_MAX = 5000
BYTES_MAX = 64 << 20

#: Between two complaints about the disk.
COMPLAIN_S = 60.0

Counts = Mapping[str, dict[str, Any]]


class PairWriter:
    """Writes what is offered within `WRITE_S`; what does not fit is counted and forgotten.

    Args:
        log: Belongs to the writer from now on.
        counters: Says what became of the copies, by their target; any thread.
    """

    def __init__(self, log: PairLog, counters: Callable[[], Counts]) -> None:
        self._log = log
        self._counters = counters
        self._waiting: deque[tuple[Exchange, str, Answered]] = deque()
        self._offered_bytes = 0
        self._taken_bytes = 0
        self._unlogged: Counter[str] = Counter()
        self._written: dict[str, dict[str, Any]] = {}
        self._complained_s = -COMPLAIN_S
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pairs", daemon=True)

    def start(self) -> None:
        """Begin to write.

        Raises:
            RuntimeError: There may be no more threads.
        """
        self._thread.start()

    def offer(self, exchange: Exchange, target: str, answer: Answered) -> None:
        """Write a pair, soon; always from one thread."""
        size_bytes = exchange.size_bytes
        held_bytes = self._offered_bytes - self._taken_bytes
        if len(self._waiting) >= PAIRS_MAX or held_bytes + size_bytes > BYTES_MAX:
            self._unlogged[target] += 1
            return
        self._offered_bytes += size_bytes
        self._waiting.append((exchange, target, answer))

    def close(self, *, timeout_s: float) -> None:
        """Write what waits, and end; blocks for so long at most, idempotent."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    # What follows runs on the writer's own thread.

    def _run(self) -> None:
        while not self._is_over.wait(WRITE_S):
            self._write()
        self._write()
        self._log.close()

    def _write(self) -> None:
        while self._waiting:
            exchange, target, answer = self._waiting.popleft()
            try:
                self._log.append(exchange, target, answer)
            except OSError as error:
                self._unlogged[target] += 1
                self._complain(error)
            self._taken_bytes += exchange.size_bytes
        for target, counts in self._counters().items():
            counts["unlogged"] = self._unlogged[target]
            if counts == self._written.get(target):
                continue
            try:
                self._log.count(target, counts)
                self._written[target] = counts
            except OSError as error:
                self._complain(error)

    def _complain(self, error: OSError) -> None:
        now_s = time.monotonic()
        if now_s - self._complained_s >= COMPLAIN_S:
            self._complained_s = now_s
            _log.error("pairs of live and shadow answers cannot be written: %s", error)
