"""A worker's segments: where its rows are kept, and made durable beside the scoring.

Where the store has logs, a worker has one segment that grows; on an object store, what is written
at once is a segment of its own.

A thread of its own writes, so that a worker scores the next lease while the disk or the store
takes in the rows of the last one.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from inferay.engine.batch.store import Log, LogStore, Store, has_logs

#: Rows have to be written when so many bytes have gathered, so that memory stays bounded: so many
#: are gathered, and as many more may be on their way to the store.
BUFFER_BYTES_MAX = 8 << 20


class Segment:
    """Rows of one worker, one after the other; created with its first bytes.

    Attributes:
        name: Of what the next bytes go to, in the job's store; `flush` may change it.
        end: One past the last byte that was kept there.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._stem = name
        self._log: _GrowingLog | None = _GrowingLog(store, name) if has_logs(store) else None
        self._store = store
        self._count = 0
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._thread = ThreadPoolExecutor(1, "segment")
        self._writing: Future[None] | None = None
        self.name = name if self._log else object_name(name, 0)
        self.end = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to end what is being kept, and to flush."""
        return self._buffered >= BUFFER_BYTES_MAX

    def keep(self, data: bytes) -> None:
        """Keep the bytes, in memory until `flush`."""
        if data:
            self._buffer.append(data)
            self._buffered += len(data)
            self.end += len(data)

    def flush(self) -> Future[None]:
        """Begin to write; the future is done when all that was kept is durable, or failed.

        Blocks until what was handed over before is written.

        Raises:
            OSError: It could not be.
            InferayError: It could not be, on an object store.
        """
        if self._writing is not None:
            self._writing.result()
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        self._writing = self._thread.submit(self._write, self.name, data)
        if data and self._log is None:
            self._count += 1
            self.name, self.end = object_name(self._stem, self._count), 0
        return self._writing

    def close(self) -> None:
        """Wait for what is being written, and release the segment."""
        self._thread.shutdown()
        if self._log is not None:
            self._log.close()

    def _write(self, name: str, data: bytes) -> None:
        if not data:
            return
        if self._log is not None:
            self._log.append(data)
        else:
            self._store.create(name, data)


class _GrowingLog:
    """A log that is created with its first bytes."""

    def __init__(self, store: LogStore, name: str) -> None:
        self._store = store
        self._name = name
        self._log: Log | None = None

    def append(self, data: bytes) -> None:
        if self._log is None:
            self._log = self._store.create_log(self._name, data)
        else:
            self._log.append(data)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


def object_name(stem: str, number: int) -> str:
    """Return the name of a worker's n-th segment on an object store."""
    return f"{stem}-{number:06d}"


def stem_of(name: str) -> tuple[str, int | None]:
    """Return stem and number of a name that `object_name` made; of another, itself and None."""
    stem, _, number = name.rpartition("-")
    is_one = number.isascii() and number.isdigit() and object_name(stem, int(number)) == name
    return (stem, int(number)) if is_one else (name, None)
