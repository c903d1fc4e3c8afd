from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from inferay.engine.batch.journal import claim
from inferay.engine.batch.spec import JobSpec
from inferay.errors import InferayError, InvalidInput
from inferay.jobs.folder import JobFolder, read_frozen


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path / "dcid.j")


@pytest.fixture
def spec(folder: JobFolder) -> JobSpec:
    return JobSpec(
        name="j", input="/in", input_type="uri_folder", output="/out",
        work=str(folder.work.root), logs=str(folder.logs), code="/code", scoring_script="s.py",
        packages=("numpy",), hashes={"code": "c"},
    )


def test_a_spec_is_read_as_it_was_written_and_is_written_once(
    folder: JobFolder, spec: JobSpec
) -> None:
    folder.write_spec(spec)
    folder.write_spec(spec)
    assert folder.read_spec() == spec
    with pytest.raises(FileExistsError):
        folder.write_spec(replace(spec, input="/other"))
    assert folder.read_spec() == spec


@pytest.mark.parametrize("content", [
    None, b"", b"{", b"[]", b"7", b"{}", b'{"format": "inferay.job", "version": 1}',
    b'{"format": "inferay.job", "version": 1, "name": "j", "more": 1}', b"\xff",
    b'{"format": "inferay.job", "version": 99}', b'{"format": "other", "version": 1}',
])
def test_what_is_no_spec_is_refused_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "spec.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InferayError) as caught:
        read_frozen(path)
    assert "\n" not in caught.value.message


def test_an_absent_spec_is_named(folder: JobFolder) -> None:
    with pytest.raises(InvalidInput, match=r"work/spec\.json"):
        folder.read_spec()


def test_progress_and_result_belong_to_an_epoch(folder: JobFolder) -> None:
    assert folder.progress(1) is None
    assert folder.last_progress() is None
    assert folder.result(1) is None
    folder.work.replace("progress.json", json.dumps({"epoch": 1, "state": "Running"}).encode())
    folder.work.create("result/1.json", b'{"status": "Failed"}')
    assert folder.progress(1) == {"epoch": 1, "state": "Running"}
    assert folder.progress(2) is None
    assert folder.last_progress() == {"epoch": 1, "state": "Running"}
    assert folder.result(1) == {"status": "Failed"}
    assert folder.result(2) is None


def test_the_last_epoch_is_the_newest_that_was_claimed(folder: JobFolder) -> None:
    assert folder.last_epoch() == 0
    for epoch in (1, 2):
        _, log = claim(folder.work, {}, epoch=epoch)
        log.close()
    assert folder.last_epoch() == 2


def test_a_cancel_can_be_asked_for_and_withdrawn_any_number_of_times(folder: JobFolder) -> None:
    for _ in range(2):
        folder.ask_to_cancel()
    assert folder.work.exists("cancel")
    for _ in range(2):
        folder.withdraw_cancel()
    assert not folder.work.exists("cancel")
