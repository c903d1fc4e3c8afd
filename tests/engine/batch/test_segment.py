from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from inferay.engine.batch import segment as segments
from inferay.engine.batch.segment import Segment
from inferay.engine.batch.store import MemoryLog, MemoryStore


class SlowStore(MemoryStore):
    """A store whose logs take nothing in until they are let."""

    def __init__(self) -> None:
        super().__init__()
        self.is_let = threading.Event()

    def create_log(self, name: str, first: bytes) -> MemoryLog:
        assert self.is_let.wait(10)
        return super().create_log(name, first)


class FullStore(MemoryStore):
    """A store without space."""

    def create_log(self, name: str, first: bytes) -> MemoryLog:
        raise OSError(28, "No space left on device")


@pytest.fixture
def store() -> Iterator[SlowStore]:
    store = SlowStore()
    yield store
    store.is_let.set()


def test_rows_are_durable_in_order_when_the_future_is_done() -> None:
    store = MemoryStore()
    segment = Segment(store, "segments/a.rows")
    segment.keep(b"one\n")
    first = segment.flush()
    segment.keep(b"two\n")
    segment.keep(b"three\n")
    segment.flush().result(10)
    assert first.done()
    assert store.read("segments/a.rows") == b"one\ntwo\nthree\n"
    assert segment.end == len(b"one\ntwo\nthree\n")
    segment.close()


def test_the_next_rows_are_kept_while_the_last_are_written(store: SlowStore) -> None:
    segment = Segment(store, "a")
    segment.keep(b"one")
    written = segment.flush()
    segment.keep(b"two")
    assert not written.done()
    store.is_let.set()
    segment.flush().result(10)
    assert written.done()
    assert store.read("a") == b"onetwo"
    segment.close()


def test_no_rows_are_durable_once_those_before_are(store: SlowStore) -> None:
    segment = Segment(store, "a")
    segment.keep(b"one")
    segment.flush()
    store.is_let.set()
    segment.flush().result(10)
    assert store.read("a") == b"one"
    segment.close()


def test_a_segment_says_when_its_rows_have_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "BUFFER_BYTES_MAX", 8)
    store = MemoryStore()
    segment = Segment(store, "a")
    segment.keep(b"row\n")
    assert not segment.is_full
    segment.keep(b"row\n")
    assert segment.is_full
    segment.flush()
    assert not segment.is_full
    segment.flush().result(10)
    assert store.read("a") == b"row\n" * 2
    segment.close()


def test_without_logs_what_is_written_at_once_is_a_segment_of_its_own() -> None:
    store = MemoryStore(can_append=False)
    segment = Segment(store, "a.rows")
    places = []
    for rows in (b"one\n", b"", b"two\nthree\n"):
        start = segment.end
        segment.keep(rows)
        places.append((segment.name, start, segment.end))
        segment.flush().result(10)
    assert [store.read(*place) for place in places[::2]] == [b"one\n", b"two\nthree\n"]
    assert store.names("") == ["a.rows-000000", "a.rows-000001"]
    segment.close()


def test_a_segment_without_rows_is_not_created() -> None:
    store = MemoryStore()
    segment = Segment(store, "a")
    segment.flush().result(10)
    segment.close()
    assert store.names("") == []


def test_a_store_that_fails_is_told_by_the_future_and_by_what_follows() -> None:
    segment = Segment(FullStore(), "a")
    segment.keep(b"one")
    assert segment.flush().exception(10)
    with pytest.raises(OSError, match="No space"):
        segment.flush()
    segment.close()
