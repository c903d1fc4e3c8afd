"""A worker's segment: where its rows are kept, and made durable beside the scoring.

A thread of its own writes, so that a worker scores the next lease while the disk or the store
takes in the rows of the last one.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from inferay.engine.batch.store import Log, Store

#: Rows are written when so many bytes have gathered, so that memory stays bounded: so many are
#: gathered, and as many more may be on their way to the store.
BUFFER_BYTES_MAX = 8 << 20


class Segment:
    """Rows of one worker, one after the other; created with its first bytes.

    Attributes:
        name: In the job's store.
        end: One past the last byte that was kept.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self.end = 0
        self._store = store
        self._log: Log | None = None
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._thread = ThreadPoolExecutor(1, "segment")
        self._writing: Future[None] | None = None

    def keep(self, data: bytes) -> None:
        """Keep the bytes; blocks while the store is behind.

        Raises:
            OSError: What was kept before could not be written.
        """
        if data:
            self._buffer.append(data)
            self._buffered += len(data)
            self.end += len(data)
            if self._buffered >= BUFFER_BYTES_MAX:
                self.flush()

    def flush(self) -> Future[None]:
        """Begin to write; the future is done when all that was kept is durable, or failed.

        Blocks until what was handed over before is written.

        Raises:
            OSError: It could not be.
        """
        if self._writing is not None:
            self._writing.result()
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        self._writing = self._thread.submit(self._write, data)
        return self._writing

    def close(self) -> None:
        """Wait for what is being written, and release the segment."""
        self._thread.shutdown()
        if self._log is not None:
            self._log.close()

    def _write(self, data: bytes) -> None:
        if not data:
            return
        if self._log is None:
            self._log = self._store.create_log(self.name, data)
        else:
            self._log.append(data)
