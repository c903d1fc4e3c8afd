"""The journal: which mini-batches are done, and where their rows are. It alone decides.

A journal per epoch, `journal/<epoch>`, created create-only: creating it claims the epoch. It is a
sequence of records, each framed by its length and checksum, so that a torn tail ends the valid
prefix. The first record names, for every earlier epoch, the length of the prefix that counts: what
an older driver adds later never counts.

    {"k": "epoch",  "epoch": 2, "prefixes": {"1": 4711}, "manifest": …, "spec": …}
    {"k": "commit", "r": [first, stop(, item, item)], "seg": name, "at": [start, stop],
     "rows": n, "ok": items, "failures": […], "files": […](, "columns": […])}
    {"k": "sealed", "by": 2}
"""

from __future__ import annotations

import json
import queue
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from inferay.engine.batch.store import Log, Store
from inferay.errors import InferayError

VERSION = 1
Record = dict[str, Any]

_FRAME = struct.Struct("<II")

#: A group commit waits for at most this long, and for at most so many records.
GROUP_WAIT_S = 0.05
GROUP_RECORDS = 256

#: A record larger than this is no record but a torn frame: one receipt stays far below it.
RECORD_BYTES_MAX = 64 << 20


#: Bytes of a journal that are read at once: a long job's whole journal would fill the memory.
READ_BYTES = 256 << 10


class SupersededError(InferayError):
    """Raised when a newer driver has claimed the job: this one must stop and change nothing."""

    code = "Superseded"


def encode(record: Record) -> bytes:
    """Return the record as it is framed in a journal.

    Raises:
        InferayError: It is so large that `decode` would take it for a torn one.
    """
    data = json.dumps(record, separators=(",", ":")).encode()
    if len(data) > RECORD_BYTES_MAX:
        raise InferayError(
            f"a commit record has {len(data)} bytes, more than {RECORD_BYTES_MAX}: too many files "
            "were written in one lease; write fewer, larger ones",
            code="RecordTooLarge",
        )
    return _FRAME.pack(len(data), zlib.crc32(data)) + data


def decode(data: bytes) -> tuple[list[Record], int]:
    """Return the records of the valid prefix and its length in bytes."""
    records: list[Record] = []
    at = 0
    while at + _FRAME.size <= len(data):
        size, checksum = _FRAME.unpack_from(data, at)
        body = data[at + _FRAME.size : at + _FRAME.size + size]
        # Zeros, as a power loss leaves them at the end, have a fitting checksum but no size.
        if not 0 < size <= RECORD_BYTES_MAX or len(body) != size or zlib.crc32(body) != checksum:
            break
        records.append(json.loads(body))
        at += _FRAME.size + size
    return records, at


def read_records(store: Store, name: str, stop: int | None = None) -> Iterator[tuple[Record, int]]:
    """Yield the records of a journal's valid prefix, each with where it ends.

    Args:
        store: The job's store.
        name: Of the journal.
        stop: Read it as if it were no longer.
    """
    data, read, ended = b"", 0, 0
    while True:
        limit = read + READ_BYTES if stop is None else min(read + READ_BYTES, stop)
        chunk = store.read(name, read, limit) if limit > read else b""
        read += len(chunk)
        data += chunk
        records, length = decode(data)
        for record in records:
            ended += _FRAME.size + _FRAME.unpack_from(data, ended - (read - len(data)))[0]
            yield record, ended
        data = data[length:]
        if not chunk or _is_damaged(data):
            return


def _is_damaged(data: bytes) -> bool:
    """Return whether the bytes, which begin with no valid record, can begin none with more."""
    if len(data) < _FRAME.size:
        return False
    size, _ = _FRAME.unpack_from(data)
    return not 0 < size <= RECORD_BYTES_MAX or len(data) >= _FRAME.size + size


def epochs(store: Store) -> list[int]:
    """Return the epochs that were claimed, in order."""
    return sorted(int(name.removeprefix("journal/")) for name in store.names("journal/"))


def epoch_facts(store: Store) -> Record:
    """Return the first epoch's own record, or nothing if no epoch was claimed."""
    claimed = epochs(store)
    return _first_record(store, claimed[0]) if claimed else {}


def _first_record(store: Store, epoch: int) -> Record:
    return next((record for record, _ in read_records(store, name_of(epoch))), {})


def valid_records(store: Store) -> Iterator[Record]:
    """Yield the records that count, of all epochs in order, without the epoch records."""
    claimed = epochs(store)
    if not claimed:
        return
    prefixes = _first_record(store, claimed[-1])["prefixes"]
    for epoch in claimed:
        # One that was claimed too late to be named there counts for nothing.
        stop = None if epoch == claimed[-1] else prefixes.get(str(epoch), 0)
        for record, _ in islice(read_records(store, name_of(epoch), stop), 1, None):
            yield record


def name_of(epoch: int) -> str:
    """Return the name of an epoch's journal."""
    return f"journal/{epoch}"


def claim(store: Store, facts: dict[str, Any], *, epoch: int | None = None) -> tuple[int, Log]:
    """Claim the next epoch (or the given one) and return it with its open journal.

    Args:
        store: The job's store.
        facts: What the epoch record says besides: hashes of the spec and the manifest.
        epoch: Claim exactly this one, where the caller was told it.

    Raises:
        SupersededError: Another driver has claimed that epoch, or a later one.
    """
    claimed = epochs(store)
    number = (claimed[-1] if claimed else 0) + 1 if epoch is None else epoch
    if claimed and claimed[-1] >= number:
        raise superseded(number, claimed[-1])
    prefixes: dict[str, int] = {}
    if claimed:
        length = max(end for _, end in read_records(store, name_of(claimed[-1])))
        prefixes = {**_first_record(store, claimed[-1])["prefixes"], str(claimed[-1]): length}
    first = {"k": "epoch", "version": VERSION, "epoch": number, "prefixes": prefixes, **facts}
    try:
        log = store.create_log(name_of(number), encode(first))
    except FileExistsError:
        raise superseded(number, number) from None
    try:
        check_newest(store, number)
    except SupersededError:
        log.close()
        raise
    return number, log


def check_newest(store: Store, epoch: int) -> None:
    """Check that no newer epoch was claimed.

    Raises:
        SupersededError: One was.
    """
    newest = epochs(store)[-1]
    if newest > epoch:
        raise superseded(epoch, newest)


def superseded(epoch: int, newest: int) -> SupersededError:
    """Return the error that stops an older driver."""
    return SupersededError(
        f"driver of epoch {epoch} stops: a newer one has claimed epoch {newest} of this job"
    )


class JournalWriter:
    """Appends records in groups, from a thread of its own, and says when they are durable.

    A group ends after `GROUP_WAIT_S` or `GROUP_RECORDS` records, or at once when nothing else
    waits. Not more than one group is written at a time; order is kept.
    """

    def __init__(
        self, log: Log, *, on_durable: Callable[[list[Record]], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._log = log
        self._on_durable = on_durable
        self._on_error = on_error
        self._queue: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def append(self, record: Record) -> None:
        """Hand in a record; returns at once."""
        self._queue.put(record)

    def close(self) -> None:
        """Write what was handed in, then stop; blocks until durable; idempotent."""
        self._queue.put(None)
        self._thread.join()
        self._log.close()

    def _write(self) -> None:
        while (record := self._queue.get()) is not None:
            group, is_last = self._gather(record)
            try:
                self._log.append(b"".join(map(encode, group)))
            except Exception as error:   # told to the driver, which fails the job with it
                self._on_error(error)
                return
            self._on_durable(group)
            if is_last:
                return

    def _gather(self, first: Record) -> tuple[list[Record], bool]:
        group = [first]
        until = time.monotonic() + GROUP_WAIT_S
        while len(group) < GROUP_RECORDS and time.monotonic() < until:
            try:
                record = self._queue.get_nowait()
            except queue.Empty:
                break
            if record is None:
                return group, True
            group.append(record)
        return group, False
