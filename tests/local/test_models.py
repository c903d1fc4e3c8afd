from __future__ import annotations

import os
from pathlib import Path

import pytest

from inferay.local.models import copy_model, remove_unused


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs" / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "w.bin").write_bytes(b"1")
    (tmp_path / "theirs" / "beside.txt").write_text("no model")
    return folder


def test_a_folder_keeps_its_name_below_a_folder_with_nothing_else(
    tmp_path: Path, model: Path
) -> None:
    copy = copy_model(tmp_path / "models", model)
    assert copy.name == "model"
    assert os.listdir(copy.parent) == ["model"]
    assert (copy / "deep" / "w.bin").read_bytes() == b"1"


def test_a_file_lies_there_by_its_name(tmp_path: Path, model: Path) -> None:
    copy = copy_model(tmp_path / "models", model / "deep" / "w.bin")
    assert (copy.name, os.listdir(copy.parent)) == ("w.bin", ["w.bin"])


def test_a_linked_model_is_copied_by_the_name_of_the_link(tmp_path: Path, model: Path) -> None:
    link = tmp_path / "latest"
    link.symlink_to(model)
    copy = copy_model(tmp_path / "models", link)
    assert copy.name == "latest"
    assert not any(path.is_symlink() for path in copy.parent.rglob("*"))


def test_a_model_is_copied_again_only_when_it_changed(tmp_path: Path, model: Path) -> None:
    first = copy_model(tmp_path / "models", model)
    inode = (first / "deep" / "w.bin").stat().st_ino
    assert copy_model(tmp_path / "models", model) == first
    assert (first / "deep" / "w.bin").stat().st_ino == inode
    (model / "deep" / "w.bin").write_bytes(b"22")
    second = copy_model(tmp_path / "models", model)
    assert (second / "deep" / "w.bin").read_bytes() == b"22"
    assert (first / "deep" / "w.bin").read_bytes() == b"1"


def test_copies_that_nobody_uses_are_removed(tmp_path: Path, model: Path) -> None:
    used = copy_model(tmp_path / "models", model)
    unused = copy_model(tmp_path / "models", model / "deep" / "w.bin")
    remove_unused(tmp_path / "models", [str(used), ""])
    assert used.exists()
    assert not unused.parent.exists()


def test_a_copy_that_was_cut_off_is_made_again(tmp_path: Path, model: Path) -> None:
    copy = copy_model(tmp_path / "models", model)
    copy.parent.with_suffix(".complete").unlink()
    (copy / "deep" / "w.bin").unlink()
    assert (copy_model(tmp_path / "models", model) / "deep" / "w.bin").exists()
