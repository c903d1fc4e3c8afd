from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.batch import output as outputs
from inferay.engine.batch.journal import Record, claim, encode
from inferay.engine.batch.manifest import ManifestReader, write_manifest
from inferay.engine.batch.output import (
    check_complete,
    check_free,
    committed,
    error_lines,
    is_published,
    publish_errors,
    publish_files,
    publish_rows,
)
from inferay.engine.batch.plan import by_count
from inferay.engine.batch.store import MemoryStore
from inferay.engine.batch.units import Unit
from inferay.errors import Conflict, JobError


def commit(*at: int, seg: str = "", span: tuple[int, int] = (0, 0), **facts: Any) -> Record:
    return {
        "k": "commit", "r": list(at), "seg": seg, "at": list(span), "rows": 0, "ok": 1,
        "failures": [], "files": [], **facts,
    }


def journal_of(*records: Record) -> MemoryStore:
    store = MemoryStore()
    _, log = claim(store, {})
    for record in records:
        log.append(encode(record))
    return store


def file_of(store: MemoryStore, name: str, mini_batch: int, text: str = "x") -> dict[str, Any]:
    stored = f"files/{mini_batch}-{name}"
    store.replace(stored, text.encode())
    return {
        "name": name, "size_bytes": len(text), "stored": stored, "mini_batch": mini_batch,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


# -- which records count


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.randoms())
def test_records_come_in_input_order_however_they_were_committed(
    sizes: list[int], chance: random.Random
) -> None:
    records, at = [], 0
    for size in sizes:
        if size == 1:
            records += [commit(at, at + 1, 0, 2), commit(at, at + 1, 2, 7)]
        else:
            records.append(commit(at, at + size))
        at += size
    shuffled = list(records)
    chance.shuffle(shuffled)
    store = journal_of(*shuffled, {"k": "sealed", "by": 1})
    assert list(committed(store)) == records


def test_the_first_commit_wins() -> None:
    first = [commit(0, 3, rows=1), commit(5, 6, 0, 2, rows=1), commit(5, 6, 2, 4, rows=1)]
    later = [commit(0, 3, rows=2), commit(2, 4, rows=2), commit(1, 2, 0, 1, rows=2),
             commit(5, 6, 0, 2, rows=2)]
    assert list(committed(journal_of(*first, *later))) == first


def test_records_of_earlier_epochs_count_and_come_first() -> None:
    store = journal_of(commit(2, 3, rows=1))
    _, log = claim(store, {})
    log.append(encode(commit(2, 3, rows=2)) + encode(commit(0, 2, rows=2)))
    assert [(r["r"], r["rows"]) for r in committed(store)] == [([0, 2], 2), ([2, 3], 1)]


def test_records_that_leave_items_out_are_not_published() -> None:
    store = MemoryStore()
    mini_batches = by_count([Unit(str(n), 0, 0) for n in range(5)], 2)
    seal = write_manifest(store, mini_batches, root="/", epoch=1)
    failure = {"n": 2, "mb": 1, "items": [0, 2]}
    whole = [commit(0, 1, ok=2), commit(1, 2, ok=0, failures=[failure]), commit(2, 3, ok=1)]
    check_complete(whole, seal)
    for records in (whole[1:], whole[:-1], [], [*whole, whole[0]]):
        with pytest.raises(JobError, match="resume the job") as caught:
            check_complete(records, seal)
        assert caught.value.code == "DataLost"


# -- rows


def test_rows_are_joined_in_order_from_any_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "COPY_BYTES", 3)
    store, output = MemoryStore(), MemoryStore()
    store.create("a", b"0011garbage44")
    store.create("b", b"2233")
    records = [
        commit(0, 1, seg="a", span=(0, 2)), commit(1, 2, seg="a", span=(2, 4)),
        commit(2, 3), commit(3, 5, seg="b", span=(0, 4)), commit(5, 6, seg="a", span=(11, 13)),
    ]
    published = publish_rows(store, records, output, "predictions.csv")
    assert output.read("predictions.csv") == b"0011223344"
    assert published.size_bytes == 10
    assert published.sha256 == hashlib.sha256(b"0011223344").hexdigest()
    assert publish_rows(store, records, output, "predictions.csv") == published


def test_rows_that_are_there_already_must_be_the_same() -> None:
    store, output = MemoryStore(), MemoryStore()
    store.create("a", b"rows")
    output.create("predictions.csv", b"rowz")
    with pytest.raises(Conflict, match="with other content"):
        publish_rows(store, [commit(0, 1, seg="a", span=(0, 4))], output, "predictions.csv")
    assert output.read("predictions.csv") == b"rowz"


def test_a_segment_that_ends_too_early_is_named_and_nothing_is_published() -> None:
    store, output = MemoryStore(), MemoryStore()
    store.create("segments/x", b"ro")
    with pytest.raises(JobError, match="segments/x ends too early, at byte 2") as caught:
        publish_rows(store, [commit(0, 1, seg="segments/x", span=(0, 4))], output, "p.csv")
    assert caught.value.code == "DataLost"
    assert output.names("") == []


# -- files


def test_files_are_published_in_the_order_of_their_names() -> None:
    store, output = MemoryStore(), MemoryStore()
    records = [
        commit(0, 1, files=[file_of(store, "z", 0, "zz"), file_of(store, "init", -1)]),
        commit(1, 2, files=[file_of(store, "a/b", 1), file_of(store, "init", -1)]),
    ]
    assert [file.name for file in publish_files(store, records, output)] == ["a/b", "init", "z"]
    assert output.read("z") == b"zz"
    assert len(publish_files(store, records, output)) == 3   # again, after a crash


@pytest.mark.parametrize(("one", "other", "message"), [
    (0, 3, "mini-batches 0 and 3 both wrote 'x'"),
    (-1, -1, "mini-batches init() and init() both wrote 'x'"),
])
def test_different_content_under_one_name_names_both(one: int, other: int, message: str) -> None:
    store, output = MemoryStore(), MemoryStore()
    first = file_of(store, "x", one, "1")
    records = [commit(0, 1, files=[first]), commit(3, 4, files=[file_of(store, "x", other, "2")])]
    with pytest.raises(JobError) as caught:
        publish_files(store, records, output)
    assert message in caught.value.message
    assert output.names("") == []


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b/c/d", "a/b")])
def test_a_file_cannot_be_a_folder_too(names: tuple[str, str]) -> None:
    store, output = MemoryStore(), MemoryStore()
    records = [commit(n, n + 1, files=[file_of(store, name, n)]) for n, name in enumerate(names)]
    with pytest.raises(JobError, match="would have to be a folder") as caught:
        publish_files(store, records, output)
    assert caught.value.code == "OutputNameClash"


@pytest.mark.parametrize("content", [b"abcd", b"abX", b"ab"])
def test_a_file_that_changed_after_its_mini_batch_is_refused(content: bytes) -> None:
    store, output = MemoryStore(), MemoryStore()
    file = file_of(store, "x", 7, "abc")
    store.replace(file["stored"], content)
    with pytest.raises(JobError) as caught:
        publish_files(store, [commit(7, 8, files=[file])], output)
    assert caught.value.code in ("OutputChanged", "DataLost")
    assert output.names("") == []


# -- errors, and what was there


def test_errors_name_items_in_input_order() -> None:
    store, output = MemoryStore(), MemoryStore()
    units = [Unit(name, 1, 0) for name in ("a", "b", "c", "d", "e")]
    seal = write_manifest(store, by_count(units, 3), root="/", epoch=1)
    reader = ManifestReader(store, seal)

    def failure(mini_batch: int, first: int, stop: int, kind: str, count: int) -> dict[str, Any]:
        return {
            "mb": mini_batch, "items": [first, stop], "n": count, "attempts": 2, "kind": kind,
            "exception": "E: x", "traceback": "tb",
        }

    records = [
        commit(0, 1, 1, 3, failures=[failure(0, 1, 3, "Timeout", 2)]),
        commit(1, 2, failures=[failure(1, 0, 2, "RowsMissing", 1)]),
    ]
    lines = [json.loads(line) for line in error_lines(records, reader)]
    assert [line.get("item") for line in lines] == ["b", "c", None]
    assert lines[2]["items"] == [{"item": "d"}, {"item": "e"}]
    assert lines[2]["rows_missing"] == 1
    assert all(
        (line["version"], line["attempts"], line["exception"]) == (1, 2, "E: x") for line in lines
    )
    published = publish_errors(records, reader, output)
    assert published is not None
    assert publish_errors(records, reader, output) == published
    assert published.size_bytes == len(output.read("errors.jsonl"))
    assert publish_errors([commit(0, 1)], reader, MemoryStore()) is None


def test_only_the_jobs_own_success_counts() -> None:
    output = MemoryStore()
    assert not is_published(output, "mine")
    output.create("_SUCCESS.json", b'{"run": {"job": "mine"}}')
    assert is_published(output, "mine")
    with pytest.raises(Conflict, match="another job"):
        is_published(output, "theirs")


def test_other_files_in_the_output_folder_are_no_conflict() -> None:
    output = MemoryStore()
    output.create("notes.txt", b"")
    check_free(output, "predictions.csv", "/out")
    output.create("predictions.csv.partial", b"")
    with pytest.raises(Conflict, match=r"predictions\.csv\.partial"):
        check_free(output, "predictions.csv", "/out")
