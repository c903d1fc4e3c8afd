from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.batch import journal_writer as writers
from inferay.engine.batch.journal import Record, claim, decode, valid_records
from inferay.engine.batch.journal_writer import JournalWriter
from inferay.engine.batch.store import LocalStore, MemoryStore, Store


@pytest.fixture(params=["local", "memory", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    return MemoryStore(can_append=request.param == "memory")


def commit(first: int) -> Record:
    return {"k": "commit", "r": [first, first + 1], "text": "new\nline é \udcff"}


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
    monkeypatch.setattr(writers, "GROUP_RECORDS", 5)
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


def test_a_writer_whose_last_write_fails_can_be_closed() -> None:
    """The wish to stop was taken in together with the records that could not be written."""

    class Broken:
        def append(self, data: bytes) -> None:
            raise OSError("the disk is gone")

        def close(self) -> None:
            pass

    for _ in range(50):
        errors: list[Exception] = []
        writer = JournalWriter(
            Broken(), on_durable=lambda group: None, on_error=errors.append, gather_s=0.005
        )
        writer.append({"k": "sealed", "by": 1})
        writer.close()
        assert len(errors) == 1
