from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from inferay.engine.batch.driver import PoolFactory
from inferay.engine.batch.listing import list_input
from inferay.engine.batch.result import Result
from inferay.engine.batch.spec import JobSpec, hash_of, hash_path
from inferay.engine.batch.store import LocalStore
from inferay.engine.batch.verify import Stopped, verify

Inline = Callable[..., PoolFactory]


@pytest.fixture
def done(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], inline: Inline,
    tmp_path: Path,
) -> JobSpec:
    """A published job of ten files, one of which failed, with a model and a file of its own."""
    model = tmp_path / "model.txt"
    model.write_text("weights")
    spec = make_spec()
    spec = replace(spec, model=str(model), hashes={
        "code": hash_path(Path(spec.code)), "model": hash_path(model), "environment": "e1",
        "settings": hash_of(spec.settings.__dict__),
    })

    def score(paths: list[str], folder: Path) -> list[str]:
        if any(path.endswith("0005.txt") for path in paths):
            raise ValueError("poison")
        (folder / os.path.basename(paths[0])).write_text("own")
        return paths

    assert run_job(spec, inline(score)).status == "Completed"
    return spec


def checks(
    spec: JobSpec, registered: dict[str, str | None] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> dict[str, tuple[str, str]]:
    found = verify(
        spec, LocalStore(Path(spec.work)), LocalStore(Path(spec.output)),
        registered=registered or {}, is_stopped=is_stopped,
        listed=lambda: list_input(spec.input, spec.input_type)[1],
    )
    return {check.name: (check.status, check.message) for check in found}


def test_a_job_that_nobody_touched_is_what_it_was(done: JobSpec) -> None:
    found = checks(done, {"code": done.hashes["code"], "environment": "e1"})
    written = {f"output/{name}" for name in os.listdir(done.output) if name != "_SUCCESS.json"}
    assert {"output/predictions.csv", "output/errors.jsonl", "output/0000.txt"} < written
    assert set(found) == written | {
        "_SUCCESS.json", "settings", "code", "model", "code as registered",
        "environment as registered", "manifest", "input",
    }
    assert set(found.values()) == {("ok", "")}


def test_success_says_what_the_job_ran_with(done: JobSpec) -> None:
    success = json.loads((Path(done.output) / "_SUCCESS.json").read_bytes())
    assert {*done.hashes, "manifest"} == set(success["hashes"])
    versions = success["run"]["versions"]
    assert {"inferay", "python", "ray", "numpy", "pyarrow"} <= set(versions)
    assert success["run"]["input"] == done.input


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def test_what_changed_or_is_gone_is_named_and_the_rest_is_ok(done: JobSpec) -> None:
    output, data = Path(done.output), Path(done.input)
    change(output / "predictions.csv")
    with open(output / "errors.jsonl", "ab") as errors:
        errors.write(b"{}\n")
    (output / "0000.txt").unlink()
    change(Path(done.code) / "score.py")
    os.unlink(done.model)
    (data / "0001.txt").unlink()
    (data / "0002.txt").write_text("longer")
    (data / "new.txt").write_text("not the job's")
    found = checks(
        replace(done, settings=replace(done.settings, timeout_s=1)),
        {"environment": "e2", "model": None},
    )
    different = {name: message for name, (status, message) in found.items() if status != "ok"}
    statuses = {name: found[name][0] for name in different}
    assert statuses == {
        "output/predictions.csv": "changed", "output/errors.jsonl": "changed",
        "output/0000.txt": "missing", "settings": "changed", "code": "changed",
        "model": "missing", "environment as registered": "changed",
        "model as registered": "missing", "input": "changed",
    }
    assert different["input"].startswith("0001.txt is gone; 0002.txt had 1 bytes of ")
    assert "new.txt" not in different["input"]
    assert different["output/errors.jsonl"].startswith("it had ")


def test_a_damaged_manifest_is_found(done: JobSpec) -> None:
    part = next(Path(done.work, "manifest").glob("*.z"))
    before = part.read_bytes()
    for content in (before[:-4], zlib.compress(b"[]"), b""):
        part.write_bytes(content)
        status, message = checks(done)["manifest"]
        assert status == "changed"
        assert "damaged" in message
    part.unlink()
    assert checks(done)["manifest"][0] == "changed"
    (Path(done.work) / "manifest" / "sealed.json").unlink()
    assert checks(done)["manifest"][0] == "missing"


def test_an_input_that_is_gone_is_missing(done: JobSpec) -> None:
    os.rename(done.input, f"{done.input}-moved")
    status, message = checks(done)["input"]
    assert (status, "cannot read the input" in message) == ("missing", True)


def test_a_success_that_is_gone_or_no_json_is_all_that_is_said(done: JobSpec) -> None:
    success = Path(done.output) / "_SUCCESS.json"
    content = success.read_text()
    for text in ("", "[]", "{}", '{"hashes": 1}'):
        success.write_text(text)
        assert {name: status for name, (status, _) in checks(done).items()} == {
            "_SUCCESS.json": "changed"
        }
    success.write_text(content.replace('"job": "job"', '"job": "other"'))
    assert checks(done)["_SUCCESS.json"] == (
        "changed", "written by job was job and is other"
    )
    success.unlink()
    assert checks(done)["_SUCCESS.json"][0] == "missing"


def test_verification_ends_when_nobody_waits_for_it(done: JobSpec) -> None:
    with pytest.raises(Stopped):
        checks(done, is_stopped=lambda: True)
