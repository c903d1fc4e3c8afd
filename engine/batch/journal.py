"""The journal: which mini-batches are done, and where their rows are. It alone decides.

A sequence of records, each framed by its length and checksum; its first one, of each epoch, is the
claim of that epoch. How it is kept depends on the store:

Where there are logs (local disk), a journal per epoch, `journal/<epoch>`, created create-only:
creating it claims the epoch. A torn tail ends its valid prefix. The first record names, for every
earlier epoch, the length of the prefix that counts: what an older driver adds later never counts.

On an object store, one sequence for all epochs, `journal/000000000001` and so on, each object a
group of records, put create-only. A claim is the next object, so an older driver's next write meets
a name that is taken, and it stops. Objects are whole or not there: nothing is ever torn.

    {"k": "epoch",  "epoch": 2, "prefixes": {"1": 4711}, "manifest": …, "spec": …}
    {"k": "commit", "r": [first, stop(, item, item)], "seg": name, "at": [start, stop],
     "rows": n, "ok": items, "failures": […], "files": […]}
    {"k": "sealed", "by": 2}
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from inferay.engine.batch.store import Log, LogStore, Store, has_logs
from inferay.errors import InferayError

VERSION = 1
Record = dict[str, Any]

_FRAME = struct.Struct("<II")

#: A record larger than this is no record but a torn frame: one receipt stays far below it.
RECORD_BYTES_MAX = 64 << 20

#: Bytes of a journal that are read at once: a long job's whole journal would fill the memory.
READ_BYTES = 256 << 10

#: Where the journal lies in the job's store.
FOLDER = "journal/"


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


class Journal(Protocol):
    """A job's journal, in whichever way its store keeps it.

    Attributes:
        gather_s: How long it pays to wait for more records before a group is written.
    """

    gather_s: float

    def epochs(self) -> list[int]:
        """Return the epochs that were claimed, in order."""

    def facts(self) -> Record:
        """Return the first epoch's own record, or nothing if no epoch was claimed."""

    def records(self) -> Iterator[Record]:
        """Yield the records that count, of all epochs in order, without the epoch records."""

    def claim(self, facts: dict[str, Any], epoch: int | None) -> tuple[int, Log]:
        """Claim the next epoch, or the given one; return it, open for its records.

        Raises:
            SupersededError: Another driver has claimed that epoch, or a later one.
        """


def journal_of(store: Store) -> Journal:
    """Return the journal of a job's store."""
    return FileJournal(store) if has_logs(store) else ObjectJournal(store)


def epochs(store: Store) -> list[int]:
    """Return the epochs that were claimed, in order."""
    return journal_of(store).epochs()


def epoch_facts(store: Store) -> Record:
    """Return the first epoch's own record, or nothing if no epoch was claimed."""
    return journal_of(store).facts()


def valid_records(store: Store) -> Iterator[Record]:
    """Yield the records that count, of all epochs in order, without the epoch records.

    Raises:
        InferayError: An object of the journal is missing or damaged.
    """
    return journal_of(store).records()


def claim(store: Store, facts: dict[str, Any], *, epoch: int | None = None) -> tuple[int, Log]:
    """Claim the next epoch (or the given one) and return it, open for its records.

    Args:
        store: The job's store.
        facts: What the epoch record says besides: hashes of the spec and the manifest.
        epoch: Claim exactly this one, where the caller was told it.

    Raises:
        SupersededError: Another driver has claimed that epoch, or a later one.
    """
    return journal_of(store).claim(facts, epoch)


class FileJournal:
    """A journal that is a file per epoch."""

    #: A file's records are on disk in a millisecond, in groups of what came meanwhile.
    gather_s = 0.0

    def __init__(self, store: LogStore) -> None:
        self._store = store

    def epochs(self) -> list[int]:
        """See `Journal.epochs`."""
        return sorted(int(name.removeprefix(FOLDER)) for name in self._store.names(FOLDER))

    def facts(self) -> Record:
        """See `Journal.facts`."""
        claimed = self.epochs()
        return self._first(claimed[0]) if claimed else {}

    def records(self) -> Iterator[Record]:
        """See `Journal.records`; a file is read in pieces."""
        claimed = self.epochs()
        if not claimed:
            return
        prefixes = self._first(claimed[-1])["prefixes"]
        for epoch in claimed:
            # One that was claimed too late to be named there counts for nothing.
            stop = None if epoch == claimed[-1] else prefixes.get(str(epoch), 0)
            for record, _ in islice(self._read(epoch, stop), 1, None):
                yield record

    def claim(self, facts: dict[str, Any], epoch: int | None) -> tuple[int, Log]:
        """See `Journal.claim`."""
        claimed = self.epochs()
        number = _next_epoch(claimed, epoch)
        prefixes: dict[str, int] = {}
        if claimed:
            newest = claimed[-1]
            length = max(end for _, end in self._read(newest))
            prefixes = {**self._first(newest)["prefixes"], str(newest): length}
        try:
            log = self._store.create_log(
                name_of(number), encode(_epoch_record(number, facts, prefixes=prefixes))
            )
        except FileExistsError:
            raise superseded(number, number) from None
        try:
            check_newest(self._store, number)
        except SupersededError:
            log.close()
            raise
        return number, log

    def _first(self, epoch: int) -> Record:
        return next((record for record, _ in self._read(epoch)), {})

    def _read(self, epoch: int, stop: int | None = None) -> Iterator[tuple[Record, int]]:
        return read_records(self._store, name_of(epoch), stop)


class ObjectJournal:
    """A journal that is a sequence of objects, one for all epochs."""

    #: Each group is a request, and nobody waits for it but the job's end: a few per second do.
    gather_s = 0.3

    def __init__(self, store: Store) -> None:
        self._store = store

    def epochs(self) -> list[int]:
        """See `Journal.epochs`."""
        count = self._count()
        if not count:
            return []
        head = self._group(count, self._store.read(object_name(count)))[0]
        if head["k"] == "group":
            head = self._group(head["of"], self._store.read(object_name(head["of"])))[0]
        return [*(int(epoch) for epoch in head["claims"]), head["epoch"]]

    def facts(self) -> Record:
        """See `Journal.facts`."""
        if not self._count():
            return {}
        return self._group(1, self._store.read(object_name(1)))[0]

    def records(self) -> Iterator[Record]:
        """See `Journal.records`; a few objects are held at a time."""
        count = self._count()
        names = ((object_name(number), 0, None) for number in range(1, count + 1))
        for number, data in enumerate(self._store.read_each(names), 1):
            yield from self._group(number, data)[1:]

    def claim(self, facts: dict[str, Any], epoch: int | None) -> tuple[int, Log]:
        """See `Journal.claim`: the older driver may write once more while this one looks."""
        claimed, at = self.epochs(), self._count() + 1
        number = _next_epoch(claimed, epoch)
        claims = self._claims(at - 1)
        record = encode(_epoch_record(number, facts, claims=claims))
        while True:
            try:
                self._store.create(object_name(at), record)
            except FileExistsError:
                head = self._group(at, self._store.read(object_name(at)))[0]
                if head["k"] == "epoch":
                    raise superseded(number, head["epoch"]) from None
                at += 1
            else:
                return number, ObjectLog(self._store, number, at)

    def _claims(self, last: int) -> dict[str, int]:
        """Return which object claimed which epoch, up to and with object `last`."""
        if not last:
            return {}
        head = self._group(last, self._store.read(object_name(last)))[0]
        at = head["of"] if head["k"] == "group" else last
        record = self._group(at, self._store.read(object_name(at)))[0]
        return {**record["claims"], str(record["epoch"]): at}

    def _count(self) -> int:
        """Return how many objects there are.

        Raises:
            InferayError: One in the middle is missing.
        """
        names = self._store.names(FOLDER)
        for number, name in enumerate(names, 1):
            if name != object_name(number):
                raise _damaged(object_name(number), "is missing")
        return len(names)

    def _group(self, number: int, data: bytes) -> list[Record]:
        records, length = decode(data)
        if not records or length != len(data):
            raise _damaged(object_name(number), "is damaged: its checksum is wrong")
        return records


class ObjectLog:
    """One epoch's writer of the sequence of objects."""

    def __init__(self, store: Store, epoch: int, claimed_at: int) -> None:
        self._store = store
        self._epoch = epoch
        self._head = encode({"k": "group", "of": claimed_at})
        self._last = claimed_at

    def append(self, data: bytes) -> None:
        """See `Log.append`.

        Raises:
            SupersededError: A newer driver has the job.
        """
        try:
            self._store.create(object_name(self._last + 1), self._head + data)
        except FileExistsError:
            raise superseded(self._epoch, self._epoch + 1) from None
        self._last += 1

    def close(self) -> None:
        """See `Log.close`."""


def name_of(epoch: int) -> str:
    """Return the name of an epoch's journal, where each has one."""
    return f"{FOLDER}{epoch}"


def object_name(number: int) -> str:
    """Return the name of an object of the sequence."""
    return f"{FOLDER}{number:012d}"


def _next_epoch(claimed: list[int], wanted: int | None) -> int:
    number = (claimed[-1] if claimed else 0) + 1 if wanted is None else wanted
    if claimed and claimed[-1] >= number:
        raise superseded(number, claimed[-1])
    return number


def _epoch_record(number: int, facts: dict[str, Any], **more: dict[str, int]) -> Record:
    return {"k": "epoch", "version": VERSION, "epoch": number, **more, **facts}


def _damaged(name: str, what: str) -> InferayError:
    return InferayError(
        f"the journal's object {name} {what}; what the job has done cannot be known, so it cannot "
        "go on: invoke the endpoint again",
        code="JournalDamaged", target=name,
    )


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
