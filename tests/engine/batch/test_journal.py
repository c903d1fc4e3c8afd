from __future__ import annotations

import contextlib
import struct
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.batch import journal as journals
from inferay.engine.batch.journal import (
    Record,
    SupersededError,
    check_newest,
    claim,
    decode,
    encode,
    epoch_facts,
    epochs,
    read_records,
    valid_records,
)
from inferay.engine.batch.store import LocalStore, Log, MemoryStore, Store, open_store
from inferay.errors import InferayError
from tests.radosgw import Bucket

records = st.lists(st.dictionaries(
    st.text(max_size=5), st.none() | st.integers() | st.text(max_size=20) | st.booleans(),
    max_size=4,
), max_size=8)


@pytest.fixture(params=["local", "memory", "objects", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        bucket: Bucket = request.getfixturevalue("bucket")
        return open_store(f"{bucket.uri}/job", bucket.access)
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    return MemoryStore(can_append=request.param == "memory")


@pytest.fixture(params=["local", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store whose journal is a file per epoch."""
    return LocalStore(tmp_path / "store") if request.param == "local" else MemoryStore()


@pytest.fixture(params=["objects", "s3"])
def objects(request: pytest.FixtureRequest) -> Store:
    """A store whose journal is one sequence of objects."""
    if request.param == "objects":
        return MemoryStore(can_append=False)
    bucket: Bucket = request.getfixturevalue("bucket")
    return open_store(f"{bucket.uri}/job", bucket.access)


def commit(first: int) -> Record:
    return {"k": "commit", "r": [first, first + 1], "text": "new\nline é \udcff"}


def write(store: Store, epoch: int, *made: Record) -> None:
    name, log = f"journal/{epoch}", b"".join(map(encode, made))
    store.replace(name, store.read(name) + log)


# -- frames


@given(records)
def test_records_come_back_as_they_were(given_records: list[Record]) -> None:
    data = b"".join(map(encode, given_records))
    assert decode(data) == (given_records, len(data))


def test_a_torn_tail_ends_the_valid_prefix_at_every_byte() -> None:
    whole = encode(commit(0)) + encode(commit(1))
    last = encode(commit(2))
    for cut in range(len(last)):
        assert decode(whole + last[:cut]) == ([commit(0), commit(1)], len(whole))
    assert decode(whole + last)[1] == len(whole + last)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_ends_the_valid_prefix_before_its_record(at: int, change: int) -> None:
    frames = [encode(commit(number)) for number in range(4)]
    data = bytearray(b"".join(frames))
    at %= len(data)
    data[at] ^= change
    intact, start = 0, 0
    while start + len(frames[intact]) <= at:
        start += len(frames[intact])
        intact += 1
    assert decode(bytes(data)) == ([commit(number) for number in range(intact)], start)


@pytest.mark.parametrize("tail", [b"\0" * 8, b"\0" * 4096, b"\xff" * 64, b"\0" * 7])
def test_a_tail_of_no_data_is_a_torn_tail(tail: bytes) -> None:
    """A file that grew before a power loss may end in zeros, whose frame has a fitting checksum."""
    whole = encode(commit(0))
    assert decode(whole + tail) == ([commit(0)], len(whole))


def test_a_record_that_could_not_be_read_back_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journals, "RECORD_BYTES_MAX", 100)
    assert decode(encode({"k": "x" * 50}))[0] == [{"k": "x" * 50}]
    with pytest.raises(InferayError, match="100"):
        encode({"k": "x" * 100})


def test_a_frame_of_absurd_length_is_torn() -> None:
    body = b"{}"
    frame = struct.pack("<II", 1 << 31, zlib.crc32(body)) + body
    assert decode(frame) == ([], 0)


@given(records, st.integers(0, 10_000), st.integers(0, 255), st.integers(1, 200))
def test_a_journal_read_in_pieces_gives_what_it_gives_as_a_whole(
    given_records: list[Record], at: int, change: int, read_bytes: int
) -> None:
    data = bytearray(b"".join(map(encode, given_records)))
    if data:
        data[at % len(data)] ^= change
    journal = bytes(data)
    store = MemoryStore()
    store.create("journal/1", journal)
    whole, length = decode(journal)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "READ_BYTES", read_bytes)
        found = list(read_records(store, "journal/1"))
        assert [record for record, _ in found] == whole
        assert [end for _, end in found][-1:] == ([length] if whole else [])
        for stop in {0, length // 2, length}:
            prefix = [record for record, _ in read_records(store, "journal/1", stop)]
            assert prefix == decode(journal[:stop])[0]


# -- epochs


def test_the_first_claim_is_epoch_one_and_the_next_follow(store: Store) -> None:
    for expected in (1, 2, 3):
        number, log = claim(store, {"spec": "s"})
        log.close()
        assert number == expected
    assert epochs(store) == [1, 2, 3]
    found = epoch_facts(store)
    assert (found["version"], found["epoch"], found["spec"]) == (1, 1, "s")


def test_epochs_are_in_the_order_of_numbers(store: Store) -> None:
    for number in range(1, 12):
        claim(store, {}, epoch=number)[1].close()
    assert epochs(store) == list(range(1, 12))


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_epoch_that_is_claimed_or_older_is_refused(store: Store, epoch: int) -> None:
    claim(store, {}, epoch=2)[1].close()
    before = {name: store.read(name) for name in store.names("")}
    with pytest.raises(SupersededError, match=f"epoch {epoch} stops.*epoch 2"):
        claim(store, {}, epoch=epoch)
    assert {name: store.read(name) for name in store.names("")} == before
    assert epochs(store) == [2]


def test_of_drivers_at_once_exactly_one_gets_the_epoch(store: Store) -> None:
    barrier = threading.Barrier(6)
    got: list[int] = []
    refused: list[SupersededError] = []

    def take() -> None:
        barrier.wait()
        try:
            number, log = claim(store, {}, epoch=1)
        except SupersededError as error:
            refused.append(error)
        else:
            got.append(number)
            log.close()

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (got, len(refused)) == ([1], 5)


def try_to_add(log: Log, record: Record) -> None:
    """Add a record as an older driver, which a store may refuse."""
    with contextlib.suppress(SupersededError):
        log.append(encode(record))


def test_what_an_older_driver_adds_later_never_counts(store: Store) -> None:
    _, old = claim(store, {})
    old.append(encode(commit(0)))
    _, new = claim(store, {})
    try_to_add(old, commit(1))
    new.append(encode(commit(2)))
    try_to_add(old, commit(3))
    assert list(valid_records(store)) == [commit(0), commit(2)]
    claim(store, {})[1].close()
    try_to_add(old, commit(4))
    try_to_add(new, commit(5))
    assert list(valid_records(store)) == [commit(0), commit(2)]
    old.close()
    new.close()


def test_a_torn_tail_stays_out_when_its_rest_is_written_later(files: Store) -> None:
    _, old = claim(files, {})
    frame = encode(commit(1))
    old.append(encode(commit(0)) + frame[:9])
    claim(files, {})[1].close()
    old.append(frame[9:])
    old.close()
    assert list(valid_records(files)) == [commit(0)]


def test_a_damaged_record_in_the_middle_ends_its_epoch_only(files: Store) -> None:
    claim(files, {})[1].close()
    write(files, 1, commit(0))
    start = len(files.read("journal/1"))
    write(files, 1, commit(1), commit(2))
    data = bytearray(files.read("journal/1"))
    data[start + 12] ^= 1
    files.replace("journal/1", bytes(data))
    claim(files, {})[1].close()
    write(files, 2, commit(3))
    assert list(valid_records(files)) == [commit(0), commit(3)]


def test_an_epoch_that_the_newest_did_not_know_counts_for_nothing(files: Store) -> None:
    """Two drivers that were told their epochs may claim them in the wrong order."""
    _, first = claim(files, {}, epoch=1)
    first.append(encode(commit(0)))
    first.close()
    two = MemoryStore()
    for name in files.names(""):
        two.create(name, files.read(name))
    claim(two, {}, epoch=2)[1].close()   # has listed the journals before epoch 3 was there
    claim(files, {}, epoch=3)[1].close()
    write(files, 3, commit(3))
    files.create("journal/2", two.read("journal/2") + encode(commit(2)))
    assert list(valid_records(files)) == [commit(0), commit(3)]
    claim(files, {})[1].close()
    assert list(valid_records(files)) == [commit(0), commit(3)]


class LateStore(MemoryStore):
    """A store whose first look at the journals is older than what is there."""

    looks = 0

    def names(self, prefix: str) -> list[str]:
        self.looks += 1
        return super().names(prefix) if self.looks > 1 else []


def test_a_driver_that_claims_too_late_is_told_so_at_once() -> None:
    late = LateStore()
    late.create("journal/3", encode({"k": "epoch", "prefixes": {}}))
    with pytest.raises(SupersededError, match=r"epoch 2 stops.*epoch 3"):
        claim(late, {}, epoch=2)


def test_only_the_newest_driver_may_go_on(store: Store) -> None:
    claim(store, {})[1].close()
    check_newest(store, 1)
    claim(store, {})[1].close()
    check_newest(store, 2)
    with pytest.raises(SupersededError, match="epoch 1 stops"):
        check_newest(store, 1)


def test_no_journal_has_no_records(store: Store) -> None:
    assert list(valid_records(store)) == []
    assert epochs(store) == []


# -- a sequence of objects


def test_an_older_drivers_next_record_stops_it(objects: Store) -> None:
    _, old = claim(objects, {})
    old.append(encode(commit(0)))
    claim(objects, {})[1].close()
    for _ in range(2):
        with pytest.raises(SupersededError, match=r"epoch 1 stops"):
            old.append(encode(commit(1)))
    assert list(valid_records(objects)) == [commit(0)]


def test_each_group_and_each_claim_is_one_object_of_the_sequence(objects: Store) -> None:
    _, log = claim(objects, {})
    log.append(encode(commit(0)) + encode(commit(1)))
    _, log = claim(objects, {})
    log.append(encode(commit(2)))
    assert objects.names("journal/") == [f"journal/{number:012d}" for number in (1, 2, 3, 4)]
    assert list(valid_records(objects)) == [commit(0), commit(1), commit(2)]


class BusyStore(MemoryStore):
    """A store in which the older driver writes just before a claim does."""

    log: Log | None = None

    def create(self, name: str, data: bytes) -> None:
        log, self.log = self.log, None
        if log:
            log.append(encode(commit(1)))
        super().create(name, data)


def test_a_claim_that_meets_the_older_drivers_last_record_takes_the_next_object() -> None:
    busy = BusyStore(can_append=False)
    _, old = claim(busy, {})
    busy.log = old
    number, new = claim(busy, {})
    assert number == 2
    with pytest.raises(SupersededError):
        old.append(encode(commit(2)))
    new.append(encode(commit(3)))
    assert list(valid_records(busy)) == [commit(1), commit(3)]
    assert claim(busy, {})[0] == 3
    assert epochs(busy) == [1, 2, 3]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("damage", ["cut", "changed", "emptied"])
def test_a_damaged_object_is_named(number: int, damage: str) -> None:
    store = MemoryStore(can_append=False)
    _, log = claim(store, {})
    log.append(encode(commit(0)))
    _, log = claim(store, {})
    log.append(encode(commit(1)))
    name = f"journal/{number:012d}"
    data = bytearray(store.read(name))
    data[-3] ^= 1
    store.replace(name, {"cut": bytes(data[:-1]), "changed": bytes(data), "emptied": b""}[damage])
    with pytest.raises(InferayError, match=f"{name} is damaged") as caught:
        list(valid_records(store))
    assert caught.value.code == "JournalDamaged"


def test_a_missing_object_is_named(objects: Store) -> None:
    _, log = claim(objects, {})
    for number in range(3):
        log.append(encode(commit(number)))
    objects.remove("journal/000000000003")
    for use in (epochs, lambda store: list(valid_records(store)), lambda store: claim(store, {})):
        with pytest.raises(InferayError, match="journal/000000000003 is missing"):
            use(objects)


@pytest.mark.parametrize("crash", range(12))
def test_drivers_that_crash_anywhere_lose_no_durable_record_and_double_none(crash: int) -> None:
    """Each driver writes until the store fails at its n-th call, before or after it took effect."""
    for is_carried_out in (False, True):
        store = FailingStore(crash, is_carried_out)
        durable: list[int] = []
        written = 0
        for _ in range(20):
            store.arm()
            try:
                _, log = claim(store, {})
                for _ in range(3):
                    written += 1
                    log.append(encode(commit(written)))
                    durable.append(written)
            except OSError:
                continue
        store.left = None
        found = [record["r"][0] for record in valid_records(store)]
        assert found == sorted(set(found))
        assert set(durable) <= set(found)


class FailingStore(MemoryStore):
    """A store without logs whose n-th call fails, for each time that it is armed."""

    def __init__(self, fails_at: int, is_carried_out: bool) -> None:
        super().__init__(can_append=False)
        self._fails_at, self._is_carried_out = fails_at, is_carried_out
        self.left: int | None = None

    def arm(self) -> None:
        self.left = self._fails_at

    def create(self, name: str, data: bytes) -> None:
        if not self._is_now():
            return super().create(name, data)
        if self._is_carried_out:
            super().create(name, data)
        raise OSError("crash")

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        if self._is_now():
            raise OSError("crash")
        return super().read(name, start, stop)

    def _is_now(self) -> bool:
        if self.left is None:
            return False
        self.left -= 1
        return self.left == -1
