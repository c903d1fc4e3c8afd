from __future__ import annotations

import itertools
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferay.engine.batch.listing import Listing, list_file, list_folder
from inferay.errors import InvalidInput

# Names around '/' (0x2f): the order of whole paths differs from the order of names in a folder.
names = st.one_of(
    st.text(alphabet="ab.-/0!+".replace("/", ""), min_size=1, max_size=4).map(str.encode),
    st.binary(min_size=1, max_size=6).filter(lambda name: not {0, 0x2F} & set(name)),
    st.sampled_from([b"new\nline", b'quo"te', b"\xff\xfe", b"-rf", b"=cmd", b"x" * 255]),
).filter(lambda name: name not in (b".", b".."))
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join).filter(lambda p: len(p) < 1000)
trees = st.sets(paths, max_size=25)


def make_tree(root: bytes, wanted: set[bytes]) -> list[bytes]:
    """Make the files that can be; return the paths that are."""
    made = []
    for path in wanted:
        whole = root + b"/" + path
        try:
            os.makedirs(os.path.dirname(whole), exist_ok=True)
            with open(whole, "xb") as file:
                file.write(b"x" * (len(path) % 7))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
        made.append(path)
    return made


@pytest.fixture(scope="module")
def fresh() -> Iterator[Iterator[bytes]]:
    """Give a new folder each time; in memory where that is there."""
    base = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    yield (os.fsencode(f"{base}/{number}") for number in itertools.count())
    shutil.rmtree(base)


@settings(max_examples=60, deadline=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture
])
@given(tree=trees, names_in_memory=st.sampled_from([1, 2, 3, 100_000]))
def test_files_come_in_bytewise_order_of_the_whole_relative_path(
    fresh: Iterator[bytes], tree: set[bytes], names_in_memory: int
) -> None:
    root = next(fresh)
    os.makedirs(root)
    made = make_tree(root, tree)
    units = list(list_folder(os.fsdecode(root), names_in_memory=names_in_memory))
    assert [os.fsencode(unit.path) for unit in units] == sorted(made)
    for unit in units:
        found = os.stat(root + b"/" + os.fsencode(unit.path))
        assert (unit.size_bytes, unit.version) == (found.st_size, found.st_mtime_ns)


def test_a_dot_sorts_before_a_slash(tmp_path: Path) -> None:
    make_tree(os.fsencode(tmp_path), {b"a/b", b"a.txt", b"a-1", b"a0", b"a/b.c/d", b"a/b.c-d"})
    assert [unit.path for unit in list_folder(str(tmp_path / "."))] == [
        "a-1", "a.txt", "a/b", "a/b.c-d", "a/b.c/d", "a0", *_temp(tmp_path),
    ]


def _temp(tmp_path: Path) -> list[str]:
    return [str(p.relative_to(tmp_path)) for p in (tmp_path / "temp").rglob("*") if p.is_file()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def listed(root: Path, seen: Listing | None = None) -> list[str]:
    return [unit.path for unit in list_folder(str(root), seen)]


def test_links_are_followed_inside_the_input_only(root: Path, tmp_path: Path) -> None:
    (root / "real").mkdir()
    (root / "real" / "a").write_text("a")
    (root / "to_file").symlink_to(root / "real" / "a")
    (root / "to_folder").symlink_to("real")
    (tmp_path / "secret").write_text("s")
    (root / "outside").symlink_to(tmp_path / "secret")
    (root / "outside_folder").symlink_to(tmp_path)
    (root / "dangling").symlink_to("nothing")
    (root / "sibling").symlink_to(tmp_path / "in2")
    (tmp_path / "in2").write_text("a name that only starts like the input's")
    seen = Listing()
    assert listed(root, seen) == ["real/a", "to_file", "to_folder/a"]
    assert (seen.links_skipped, seen.others_skipped) == (4, 0)


def test_links_in_a_circle_end(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a" / "file").write_text("")
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "self").symlink_to(".")
    (root / "loop").symlink_to("loop")
    seen = Listing()
    assert listed(root, seen) == ["a/file"]
    assert seen.links_skipped == 3


def test_the_input_may_be_a_link_itself(root: Path, tmp_path: Path) -> None:
    (root / "a").write_text("")
    (root / "b").symlink_to(root / "a")
    (tmp_path / "link").symlink_to(root)
    assert listed(tmp_path / "link") == ["a", "b"]


def test_pipes_and_sockets_are_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe")
    (root / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(root)   # a socket's path is short
        bound.bind("socket")
        (root / "file").write_text("")
        seen = Listing()
        assert listed(root, seen) == ["file"]
        assert seen.others_skipped == 3


def test_an_empty_folder_has_no_units(root: Path) -> None:
    (root / "empty" / "deeper").mkdir(parents=True)
    assert listed(root) == []


def test_files_of_no_bytes_and_hidden_ones_are_units(root: Path) -> None:
    (root / ".hidden").write_text("")
    (root / "zero").write_text("")
    assert listed(root) == [".hidden", "zero"]


@pytest.mark.parametrize("where", ["missing", "file"])
def test_a_root_that_is_no_folder_is_refused_by_name(root: Path, where: str) -> None:
    (root / "file").write_text("")
    with pytest.raises(InvalidInput, match=where) as caught:
        listed(root / where)
    assert caught.value.code == "InputUnreadable"


def test_an_unreadable_folder_is_named(root: Path) -> None:
    (root / "closed").mkdir()
    (root / "closed" / "file").write_text("")
    scandir = os.scandir

    def refuse(path: bytes) -> object:   # root reads everything, so no chmod shows it
        if path.endswith(b"closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(InvalidInput, match="in/closed: Permission denied"):
            listed(root)


def test_a_file_that_vanishes_while_it_is_listed_is_named(root: Path) -> None:
    (root / "a").write_text("")
    (root / "b").write_text("")
    units = list_folder(str(root))
    next(units)
    (root / "b").unlink()
    with pytest.raises(InvalidInput, match="in/b: No such file"):
        next(units)


def test_a_folder_is_listed_as_it_is_sorted_outside_memory(root: Path) -> None:
    for number in range(500):
        (root / f"{number * 7919 % 500}").write_text("")
    units = [unit.path for unit in list_folder(str(root), names_in_memory=13)]
    assert units == sorted(str(number) for number in range(500))


def test_a_single_file_is_one_unit_with_its_own_name(root: Path) -> None:
    path = root / "new\nline.csv"
    path.write_text("abc")
    (unit,) = list_file(str(path))
    assert (unit.path, unit.size_bytes) == ("new\nline.csv", 3)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_single_file_that_is_none_is_refused(root: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="in"):
        list(list_file(f"{root}/{name}"))
