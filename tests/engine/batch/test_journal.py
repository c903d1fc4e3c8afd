from __future__ import annotations

import json
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.batch import journal as journals
from inferay.engine.batch.journal import (
    JournalWriter,
    Record,
    SupersededError,
    check_newest,
    claim,
    decode,
    encode,
    epochs,
    read_records,
    valid_records,
)
from inferay.engine.batch.store import LocalStore, MemoryStore, Store
from inferay.errors import InferayError

records = st.lists(st.dictionaries(
    st.text(max_size=5), st.none() | st.integers() | st.text(max_size=20) | st.booleans(),
    max_size=4,
), max_size=8)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "store") if request.param == "local" else MemoryStore()


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
    first, _ = decode(store.read("journal/1"))
    assert first == [{"k": "epoch", "version": 1, "epoch": 1, "prefixes": {}, "spec": "s"}]


def test_epochs_are_in_the_order_of_numbers(store: Store) -> None:
    for number in range(1, 12):
        claim(store, {}, epoch=number)[1].close()
    assert epochs(store) == list(range(1, 12))


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_epoch_that_is_claimed_or_older_is_refused(store: Store, epoch: int) -> None:
    claim(store, {}, epoch=2)[1].close()
    before = store.read("journal/2")
    with pytest.raises(SupersededError, match=f"epoch {epoch} stops.*epoch 2"):
        claim(store, {}, epoch=epoch)
    assert store.read("journal/2") == before
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


def test_what_an_older_driver_adds_later_never_counts(store: Store) -> None:
    _, old = claim(store, {})
    old.append(encode(commit(0)))
    _, new = claim(store, {})
    old.append(encode(commit(1)))
    new.append(encode(commit(2)))
    old.append(encode(commit(3)))
    assert list(valid_records(store)) == [commit(0), commit(2)]
    claim(store, {})[1].close()
    old.append(encode(commit(4)))
    new.append(encode(commit(5)))
    assert list(valid_records(store)) == [commit(0), commit(2)]
    old.close()
    new.close()


def test_a_torn_tail_stays_out_when_its_rest_is_written_later(store: Store) -> None:
    _, old = claim(store, {})
    frame = encode(commit(1))
    old.append(encode(commit(0)) + frame[:9])
    claim(store, {})[1].close()
    old.append(frame[9:])
    old.close()
    assert list(valid_records(store)) == [commit(0)]


def test_a_damaged_record_in_the_middle_ends_its_epoch_only(store: Store) -> None:
    claim(store, {})[1].close()
    write(store, 1, commit(0))
    start = len(store.read("journal/1"))
    write(store, 1, commit(1), commit(2))
    data = bytearray(store.read("journal/1"))
    data[start + 12] ^= 1
    store.replace("journal/1", bytes(data))
    claim(store, {})[1].close()
    write(store, 2, commit(3))
    assert list(valid_records(store)) == [commit(0), commit(3)]


def test_an_epoch_that_the_newest_did_not_know_counts_for_nothing(store: Store) -> None:
    """Two drivers that were told their epochs may claim them in the wrong order."""
    _, first = claim(store, {}, epoch=1)
    first.append(encode(commit(0)))
    first.close()
    two = MemoryStore()
    for name in store.names(""):
        two.create(name, store.read(name))
    claim(two, {}, epoch=2)[1].close()   # has listed the journals before epoch 3 was there
    claim(store, {}, epoch=3)[1].close()
    write(store, 3, commit(3))
    store.create("journal/2", two.read("journal/2") + encode(commit(2)))
    assert list(valid_records(store)) == [commit(0), commit(3)]
    claim(store, {})[1].close()
    assert list(valid_records(store)) == [commit(0), commit(3)]


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


# -- the writer


class HeldLog:
    """A log whose appends wait until they are let go."""

    def __init__(self) -> None:
        self.groups: list[list[Record]] = []
        self.closed = 0
        self.is_writing = threading.Event()
        self.go = threading.Semaphore(0)
        self.error: OSError | None = None

    def append(self, data: bytes) -> None:
        self.is_writing.set()
        assert self.go.acquire(timeout=10)
        if self.error:
            raise self.error
        self.groups.append(decode(data)[0])

    def close(self) -> None:
        self.closed += 1


def make_writer(log: Any) -> tuple[JournalWriter, list[Record], list[Exception]]:
    durable: list[Record] = []
    errors: list[Exception] = []
    return JournalWriter(log, on_durable=durable.extend, on_error=errors.append), durable, errors


def test_records_are_written_in_order_and_durable_at_close(store: Store) -> None:
    _, log = claim(store, {})
    writer, durable, errors = make_writer(log)
    wanted = [commit(number) for number in range(1000)]
    for record in wanted:
        writer.append(record)
    writer.close()
    assert list(valid_records(store)) == wanted == durable
    assert errors == []


def test_what_waits_while_a_group_is_written_becomes_one_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journals, "GROUP_RECORDS", 5)
    monkeypatch.setattr(journals, "GROUP_WAIT_S", 60.0)
    log = HeldLog()
    writer, durable, _ = make_writer(log)
    writer.append(commit(0))
    assert log.is_writing.wait(10)
    for number in range(1, 13):
        writer.append(commit(number))
    assert durable == []
    log.go.release(100)
    writer.close()
    sizes = [len(group) for group in log.groups]
    assert sum(sizes) == 13
    assert max(sizes) <= 5
    assert len(sizes) <= 4 + 1
    assert durable == [commit(number) for number in range(13)]


def test_a_failed_write_is_reported_once_and_nothing_follows_it(
    wait_for: Callable[..., None],
) -> None:
    log = HeldLog()
    log.error = OSError(28, "No space left on device")
    log.go.release(100)
    writer, durable, errors = make_writer(log)
    writer.append(commit(0))
    wait_for(lambda: errors)
    log.error = None
    writer.append(commit(1))   # must not be written behind a torn record
    writer.close()
    assert len(errors) == 1
    assert (durable, log.groups) == ([], [])


def test_a_record_that_cannot_be_written_as_json_is_reported() -> None:
    log = HeldLog()
    log.go.release(100)
    writer, durable, errors = make_writer(log)
    writer.append({"k": object()})
    writer.close()
    assert len(errors) == 1
    assert durable == []


def test_closing_twice_is_closing_once_more() -> None:
    log = HeldLog()
    log.go.release(100)
    writer, durable, _ = make_writer(log)
    writer.append(commit(0))
    writer.close()
    writer.close()
    assert durable == [commit(0)]
    assert json.dumps(log.groups) == json.dumps([[commit(0)]])
