from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inferay.engine.batch import store as stores
from inferay.engine.batch.store import LocalStore, MemoryStore, Store, has_logs, open_store
from inferay.engine.storage import Access
from tests.radosgw import Bucket

KINDS = ["local", "memory", "s3"]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "local":
        return open_store(str(tmp_path / "store"), Access())
    bucket: Bucket = request.getfixturevalue("bucket")
    return open_store(f"{bucket.uri}/a/prefix", bucket.access)


def test_what_was_created_is_read_whole_and_in_parts(store: Store) -> None:
    store.create("a/b", b"0123456789")
    assert store.read("a/b") == b"0123456789"
    assert store.read("a/b", 2, 5) == b"234"
    assert store.read("a/b", 8) == b"89"
    assert store.read("a/b", 8, 99) == b"89"
    assert store.read("a/b", 99) == b""
    assert store.read("a/b", 5, 5) == b""


def test_a_taken_name_is_refused_and_unchanged(store: Store) -> None:
    store.create("name", b"first")
    with pytest.raises(FileExistsError):
        store.create("name", b"second")
    with pytest.raises(FileExistsError):
        store.create_stream("name", [b"sec", b"ond"])
    if has_logs(store):
        with pytest.raises(FileExistsError):
            store.create_log("name", b"second")
    assert store.read("name") == b"first"
    assert store.names("") == ["name"]


def test_replace_puts_whatever_was_there(store: Store) -> None:
    store.replace("name", b"a longer first")
    store.replace("name", b"second")
    assert store.read("name") == b"second"


def test_a_stream_is_put_as_one(store: Store) -> None:
    store.create_stream("s", (bytes([byte]) * 3 for byte in b"abc"))
    store.create_stream("nothing", ())
    assert store.read("s") == b"aaabbbccc"
    assert store.read("nothing") == b""


def test_a_stream_that_fails_leaves_no_name(store: Store) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise KeyError("stop")

    with pytest.raises(KeyError):
        store.create_stream("s", chunks())
    assert not store.exists("s")
    assert store.names("") == []
    store.create("s", b"whole")


def test_a_missing_name_is_no_file(store: Store) -> None:
    assert not store.exists("a")
    with pytest.raises(FileNotFoundError):
        store.read("a")
    store.remove("a")
    store.delete("a")
    assert store.names("a/") == []


def test_names_come_in_bytewise_order_by_prefix(store: Store) -> None:
    for name in ("j/10", "j/9", "j/é", "j/z", "ja", "k/j/1"):
        store.create(name, b"")
    assert store.names("j/") == ["j/10", "j/9", "j/z", "j/é"]
    assert store.names("j") == ["j/10", "j/9", "j/z", "j/é", "ja"]


def test_removing_frees_the_name(store: Store) -> None:
    store.create("a", b"1")
    store.remove("a")
    store.create("a", b"2")
    assert store.read("a") == b"2"


def test_deleting_a_folder_leaves_its_neighbours(store: Store) -> None:
    for name in ("seg/1", "seg/x/2", "segments", "other/1"):
        store.create(name, b"")
    store.delete("seg")
    assert store.names("") == ["other/1", "segments"]
    assert not store.exists("seg/1")


def test_ranges_are_read_in_order(store: Store) -> None:
    for number in range(40):
        store.create(f"n/{number}", b"%03d" % number)
    wanted = [(f"n/{number}", 1, 3) for number in reversed(range(40))]
    assert list(store.read_each(wanted)) == [b"%02d" % number for number in reversed(range(40))]
    assert list(store.read_each([("n/7", 0, None), ("n/8", 2, 99), ("n/9", 5, 9)])) == [
        b"007", b"8", b""
    ]
    with pytest.raises(FileNotFoundError):
        list(store.read_each([("n/7", 0, None), ("n/none", 0, None)]))


def test_a_log_grows_at_its_end(store: Store) -> None:
    if not has_logs(store):
        pytest.skip("a store without logs")
    log = store.create_log("log", b"first")
    assert store.read("log") == b"first"
    log.append(b" second")
    log.append(b"")
    log.append(b" third")
    assert store.read("log") == b"first second third"
    log.close()
    log.close()
    assert store.read("log", 6, 12) == b"second"


@pytest.mark.parametrize("put", ["create", "create_stream", "create_log"])
def test_of_creators_at_once_exactly_one_wins(store: Store, put: str) -> None:
    if put == "create_log" and not has_logs(store):
        pytest.skip("a store without logs")
    barrier = threading.Barrier(8)
    won: list[bytes] = []
    lost: list[bytes] = []

    def create(value: bytes) -> None:
        barrier.wait()
        try:
            if put == "create":
                store.create("name", value)
            elif put == "create_stream":
                store.create_stream("name", [value[:5], value[5:]])
            elif has_logs(store):
                store.create_log("name", value).close()
        except FileExistsError:
            lost.append(value)
        else:
            won.append(value)

    threads = [threading.Thread(target=create, args=(b"%d" % n * 1000,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert store.read("name") == won[0]
    assert store.names("") == ["name"]


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.mark.parametrize("call", ["link", "fsync"])
def test_a_crash_between_write_and_link_leaves_no_name(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    local.create("other", b"")

    def crash(*_: object) -> None:
        raise OSError("power")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, crash)
        with pytest.raises(OSError, match="power"):
            local.create("name", b"data")
        with pytest.raises(OSError, match="power"):
            local.create_log("log", b"data")
    assert local.names("") == ["other"]
    local.create("name", b"data")


def test_what_a_killed_writer_left_is_no_name(local: LocalStore) -> None:
    local.create("journal/1", b"")
    (local.path("journal") / ".2.aside").write_bytes(b"half")
    assert local.names("journal/") == ["journal/1"]


def test_replace_keeps_the_old_content_until_the_new_one_is_whole(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.replace("name", b"old")

    def crash(*_: object) -> None:
        raise OSError("power")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(OSError, match="power"):
            local.replace("name", b"new")
    assert local.read("name") == b"old"
    assert os.listdir(local.root) == ["name"]


@pytest.mark.parametrize("put", ["create", "replace", "append"])
def test_bytes_are_synced_before_the_call_returns(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, put: str
) -> None:
    log = local.create_log("log", b"")
    synced: list[str] = []

    def spy(name: str, real: Callable[[int], None]) -> Callable[[int], None]:
        def sync(descriptor: int) -> None:
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            synced.append("folder" if is_folder else name)
            real(descriptor)

        return sync

    monkeypatch.setattr(os, "fsync", spy("file", os.fsync))
    monkeypatch.setattr(os, "fdatasync", spy("data", os.fdatasync))
    if put == "append":
        log.append(b"data")
        assert synced == ["data"]
    else:
        getattr(local, put)("name", b"data")
        assert synced == ["file", "folder"]
    log.close()


def test_an_append_that_is_written_in_pieces_is_whole(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = local.create_log("log", b"")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:3])))
    log.append(b"0123456789")
    log.close()
    assert local.read("log") == b"0123456789"


@pytest.mark.parametrize("name", [
    "x" * 255, "new\nline", 'quo"te', "-rf", "=cmd", os.fsdecode(b"\xff\xfe"), "é" * 127,
])
def test_a_name_that_the_disk_takes_is_taken(local: LocalStore, name: str) -> None:
    local.create(name, b"1")
    with pytest.raises(FileExistsError):
        local.create_stream(name, [b"2"])
    local.replace(name, b"3")
    assert local.read(name) == b"3"
    assert local.names("") == [name]


def test_a_disk_without_fdatasync_syncs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.delattr(os, "fdatasync")
    monkeypatch.setattr(os, "fsync", synced.append)
    stores.sync_data(7)
    assert synced == [7]
