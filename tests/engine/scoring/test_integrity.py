from __future__ import annotations

import os
from pathlib import Path

import pytest

from inferay.engine.batch.spec import hash_path
from inferay.engine.scoring import integrity
from inferay.engine.scoring.integrity import check_content
from inferay.errors import InferayError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(b"0123456789")
    (folder / "labels").write_text("a b c")
    return folder


def refused(model: Path, registered: str) -> InferayError:
    with pytest.raises(InferayError) as caught:
        check_content(str(model), registered)
    assert caught.value.code == "ModelChanged"
    return caught.value


def test_what_was_registered_is_read_once(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = hash_path(model)
    check_content(str(model), registered)
    monkeypatch.setattr(integrity, "hash_path", lambda path: pytest.fail(f"{path} is read again"))
    check_content(str(model), registered)


def test_a_truncated_file_is_refused_and_named(model: Path) -> None:
    registered = hash_path(model)
    check_content(str(model), registered)
    os.truncate(model / "weights", 4)
    said = refused(model, registered).message
    assert str(model) in said
    assert "changed last: weights" in said


def test_a_flipped_byte_is_found_although_size_and_time_are_put_back(model: Path) -> None:
    registered = hash_path(model)
    check_content(str(model), registered)
    before = (model / "weights").stat()
    (model / "weights").write_bytes(b"0123456780")
    os.utime(model / "weights", ns=(before.st_atime_ns, before.st_mtime_ns))
    refused(model, registered)


def test_an_added_a_removed_and_a_missing_file_are_found(model: Path) -> None:
    registered = hash_path(model)
    (model / "more").write_text("")
    refused(model, registered)
    (model / "more").unlink()
    check_content(str(model), registered)
    (model / "labels").unlink()
    refused(model, registered)
    (model / "weights").unlink()
    model.rmdir()
    assert "is gone" in refused(model, registered).message


def test_a_model_of_one_file_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"onnx")
    registered = hash_path(file)
    check_content(str(file), registered)
    file.write_bytes(b"ONNX")
    assert "changed last: model.onnx" in refused(file, registered).message


def test_a_cache_that_cannot_be_written_is_done_without(model: Path, cache: Path) -> None:
    cache.write_text("a file where the folder would be")
    check_content(str(model), hash_path(model))


def test_a_model_that_nobody_registered_is_not_read(tmp_path: Path) -> None:
    check_content(str(tmp_path / "none"), "")
