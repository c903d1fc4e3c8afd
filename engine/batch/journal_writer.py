"""Group commit: records become durable in groups, on a thread of their own."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable

from inferay.engine.batch.journal import Record, encode
from inferay.engine.batch.store import Log

#: A group has at most so many records and bytes: what a crash may lose, and the size of an object.
GROUP_RECORDS = 256
GROUP_BYTES = 4 << 20

#: Records that wait to be written. Beyond, whoever hands in more waits too, so that a store that
#: is slower than the workers slows them down instead of filling the driver's memory.
QUEUE_RECORDS_MAX = 4_096


class JournalWriter:
    """Appends records in groups, from a thread of its own, and says when they are durable.

    A group is what waits when the one before is written, and what comes within `gather_s` more.
    Not more than one group is written at a time; order is kept. After an error nothing is written.
    """

    def __init__(
        self, log: Log, *, on_durable: Callable[[list[Record]], None],
        on_error: Callable[[Exception], None], gather_s: float = 0.0,
    ) -> None:
        self._log = log
        self._on_durable = on_durable
        self._on_error = on_error
        self._gather_s = gather_s
        self._queue: queue.Queue[Record | None] = queue.Queue(QUEUE_RECORDS_MAX)
        self._is_told_to_stop = False   # known to the thread only
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, record: Record) -> None:
        """Hand in a record; returns at once, unless very many wait."""
        self._queue.put(record)

    def close(self) -> None:
        """Write what was handed in, then stop; blocks until durable; idempotent."""
        if self._thread.is_alive():
            self._queue.put(None)
        self._thread.join()
        self._log.close()

    def _run(self) -> None:
        try:
            self._write()
        except Exception as error:   # told to the driver, which fails the job with it
            self._on_error(error)
            while not self._is_told_to_stop:   # nobody may wait for room for ever
                self._is_told_to_stop = self._queue.get() is None

    def _write(self) -> None:
        while not self._is_told_to_stop:
            group, data = self._gather()
            if group:
                self._log.append(data)
                self._on_durable(group)

    def _gather(self) -> tuple[list[Record], bytes]:
        """Wait for a record, and take in what follows it soon; nothing at the end."""
        group: list[Record] = []
        data = bytearray()
        until_s = math.inf
        while len(group) < GROUP_RECORDS and len(data) < GROUP_BYTES:
            try:
                record = self._next(until_s)
            except queue.Empty:
                break
            if record is None:
                self._is_told_to_stop = True
                break
            if not group:
                until_s = time.monotonic() + self._gather_s
            group.append(record)
            data += encode(record)
        return group, bytes(data)

    def _next(self, until_s: float) -> Record | None:
        if until_s == math.inf:
            return self._queue.get()
        wait_s = until_s - time.monotonic()
        return self._queue.get(timeout=wait_s) if wait_s > 0 else self._queue.get_nowait()
