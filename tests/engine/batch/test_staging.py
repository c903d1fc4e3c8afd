from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from inferay.engine.batch.messages import StoredFile
from inferay.engine.batch.staging import SharedFileError, Staging
from inferay.engine.batch.store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def staging(store: LocalStore) -> Staging:
    return Staging(store.path("staging/w0"), store, "files/w0")


def put(staging: Staging, name: str, text: str = "x") -> Path:
    path = staging.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names(files: tuple[StoredFile, ...]) -> list[str]:
    return [file.name for file in files]


def test_a_file_belongs_to_the_call_that_wrote_it(staging: Staging, store: LocalStore) -> None:
    assert staging.take(0) == ()
    put(staging, "a.txt", "abc")
    (file,) = staging.take(1)
    assert (file.name, file.size_bytes, file.mini_batch) == ("a.txt", 3, 1)
    assert file.sha256 == hashlib.sha256(b"abc").hexdigest()
    assert store.read(file.stored) == b"abc"
    assert staging.take(2) == ()
    assert not (staging.folder / "a.txt").exists()


def test_files_of_many_calls_in_one_tick_of_the_clock_are_told_apart(staging: Staging) -> None:
    for number in range(300):
        if number % 3:
            put(staging, "same.txt" if number % 2 else f"{number}.txt", str(number))
        found = staging.take(number)
        assert [file.mini_batch for file in found] == ([number] if number % 3 else [])
        if found:
            assert found[0].sha256 == hashlib.sha256(str(number).encode()).hexdigest()


def test_nested_folders_are_looked_into_when_new_and_when_old(staging: Staging) -> None:
    put(staging, "a/b/c.txt")
    put(staging, "top.txt")
    assert names(staging.take(0)) == ["top.txt", "a/b/c.txt"]
    put(staging, "a/b/d.txt")
    assert names(staging.take(1)) == ["a/b/d.txt"]
    (staging.folder / "a" / "new").mkdir()
    assert staging.take(2) == ()
    put(staging, "a/new/e.txt")
    assert names(staging.take(3)) == ["a/new/e.txt"]
    assert staging.take(4) == ()


@pytest.mark.parametrize("name", [
    "new\nline", 'quo"te', os.fsdecode(b"\xff\xfe"), "x" * 255, ".hidden", "-rf", " ",
])
def test_names_are_kept_exactly(staging: Staging, name: str) -> None:
    put(staging, name)
    assert names(staging.take(0)) == [name]


def test_a_failed_calls_files_are_thrown_away(staging: Staging, store: LocalStore) -> None:
    put(staging, "half.txt")
    put(staging, "sub/half.txt")
    staging.discard()
    assert staging.take(1) == ()
    put(staging, "half.txt", "whole")
    (file,) = staging.take(2)
    assert store.read(file.stored) == b"whole"
    staging.discard()
    assert store.read(file.stored) == b"whole"


def test_what_init_wrote_is_kept_once_and_stays_readable(
    staging: Staging, store: LocalStore
) -> None:
    path = put(staging, "labels.txt", "init")
    (file,) = staging.keep_init_files()
    assert (file.name, file.mini_batch) == ("labels.txt", -1)
    assert path.read_text() == store.read(file.stored).decode() == "init"
    assert staging.take(0) == ()
    put(staging, "0.txt")
    assert names(staging.take(1)) == ["0.txt"]
    put(staging, "1.txt")
    staging.discard()
    assert path.exists()


@pytest.mark.parametrize("how", ["append", "replace", "remove", "same size"])
def test_writing_to_a_file_of_init_is_refused_by_name(staging: Staging, how: str) -> None:
    path = put(staging, "all.csv", "head")
    staging.keep_init_files()
    if how == "append":
        with path.open("a") as file:
            file.write("row")
    elif how == "replace":
        path.write_text("another")
    elif how == "same size":
        path.write_text("daeh")
    else:
        path.unlink()
        put(staging, "all.csv", "other")
    with pytest.raises(SharedFileError, match=r"'all\.csv', which outlives one mini-batch"):
        staging.take(0)


def test_only_the_call_that_wrote_to_a_file_of_init_is_refused(staging: Staging) -> None:
    path = put(staging, "all.csv", "head")
    staging.keep_init_files()
    path.write_text("changed")
    with pytest.raises(SharedFileError):
        staging.take(0)
    staging.discard()
    put(staging, "1.csv")
    assert names(staging.take(1)) == ["1.csv"]


def test_a_second_call_may_write_a_file_of_the_same_name(staging: Staging) -> None:
    """Whether the job may have both is decided at the end, where both are known."""
    put(staging, "out.txt", "1")
    (first,) = staging.take(0)
    put(staging, "out.txt", "2")
    (second,) = staging.take(1)
    assert first.stored != second.stored
    assert first.sha256 != second.sha256


def test_a_script_may_remove_a_folder_that_it_made(staging: Staging) -> None:
    put(staging, "tmp/a.txt")
    staging.take(0)
    shutil.rmtree(staging.folder / "tmp")
    assert staging.take(1) == ()
    put(staging, "tmp/b.txt")
    assert names(staging.take(2)) == ["tmp/b.txt"]
    shutil.rmtree(staging.folder / "tmp")
    staging.discard()


def test_a_script_may_remove_the_whole_folder_and_make_it_again(staging: Staging) -> None:
    put(staging, "a.txt")
    shutil.rmtree(staging.folder)
    assert staging.take(0) == ()
    put(staging, "b.txt")
    assert names(staging.take(1)) == ["b.txt"]


def test_a_link_is_kept_as_what_it_leads_to(staging: Staging, store: LocalStore) -> None:
    (store.root / "elsewhere").write_text("content")
    (staging.folder / "link").symlink_to("../../elsewhere")
    (file,) = staging.take(0)
    assert (file.name, file.size_bytes) == ("link", 7)
    assert store.read(file.stored) == b"content"


def test_the_folder_is_removed_at_the_end(staging: Staging) -> None:
    put(staging, "left.txt")
    staging.remove()
    assert not staging.folder.exists()
    staging.remove()
