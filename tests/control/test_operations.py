"""A crash between any two steps converges: every point, alone and in pairs.

The engine is replaced by one that completes at once, so that hundreds of histories run in seconds;
what it must not do twice is counted.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.batch.dispatch import Counts
from inferay.engine.batch.journal import claim
from inferay.engine.batch.result import Result
from inferay.engine.batch.store import LocalStore
from inferay.jobs.folder import read_frozen
from tests.control.conftest import Plane, deploy, invocation


class CrashError(BaseException):
    """The process is gone: nothing may catch this."""


class InstantJobs:
    """Ray's job API with drivers that complete within the submission."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.runs: list[str] = []

    def submit(self, submission_id: str, entrypoint: str, env: dict[str, str]) -> None:
        if submission_id in self.known:
            return
        self.known[submission_id] = "gone"
        self.runs.append(submission_id)
        words = shlex.split(entrypoint)
        spec = read_frozen(Path(words[words.index("run") + 1]))
        epoch = int(words[-1])
        store = LocalStore(Path(spec.work))
        _, log = claim(store, {}, epoch=epoch)
        log.close()
        result = Result("Completed", epoch, spec.output, Counts())
        store.create(f"result/{epoch}.json", result.to_bytes())

    def drivers(self) -> dict[str, str]:
        return dict(self.known)

    def message(self, submission_id: str) -> str:
        return ""

    def stop(self, submission_id: str) -> None:
        pass

    def close(self) -> None:
        pass


def history(plane: Plane, code: Path, data: Path, crash_at: tuple[int, ...]) -> int:
    """Live a history with crashes at these checkpoints; return how many checkpoints it passed."""
    passed = 0

    def checkpoint(name: str) -> None:
        nonlocal passed
        passed += 1
        if passed in crash_at:
            raise CrashError(name)

    plane.context.checkpoint = checkpoint
    turn = Plane.turn

    def turn_until_quiet() -> None:
        for _ in range(5):
            try:
                turn(plane)
            except CrashError:
                plane.restart()

    plane.turn = turn_until_quiet   # type: ignore[method-assign]
    deploy(plane, code)
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j")).raise_for_status()
    plane.turn()
    plane.http.delete("/v1/batchEndpoints/digits").raise_for_status()
    plane.turn()
    return passed


def outcome(plane: Plane) -> dict[str, Any]:
    """Return what a user can see in the end."""
    operations = [
        (kind, status) for kind, status in plane.database.engine.connect().exec_driver_sql(
            "SELECT kind, status FROM operations ORDER BY sequence"
        )
    ]
    job = plane.job("j")
    assets = plane.workspace.assets
    return {
        "operations": operations,
        "endpoints": plane.http.get("/v1/batchEndpoints").json()["value"],
        "job": (job["status"], job["error"]),
        "assets": sorted(
            str(path.relative_to(assets)) for path in assets.rglob("*") if path.is_file()
        ),
        "asides": [path.name for path in assets.iterdir() if path.name.startswith(".")],
        "runs": plane.ray.runs,
    }


def live(tmp_path: Path, name: str, code: Path, data: Path, *crash_at: int) -> tuple[int, str]:
    plane = Plane(tmp_path / name, InstantJobs())
    try:
        passed = history(plane, code, data, crash_at)
        return passed, json.dumps(outcome(plane), indent=1)
    finally:
        plane.close()


def test_a_crash_at_any_point_ends_as_if_there_had_been_none(
    tmp_path: Path, make_code: Callable[..., Path], data: Path
) -> None:
    code = make_code()
    points, undisturbed = live(tmp_path, "none", code, data)
    assert points >= 15
    for point in range(1, points + 1):
        _, ended = live(tmp_path, f"p{point}", code, data, point)
        assert ended == undisturbed, f"a crash at point {point} of {points}"


@pytest.mark.slow
def test_a_crash_during_the_recovery_from_a_crash_ends_so_too(
    tmp_path: Path, make_code: Callable[..., Path], data: Path
) -> None:
    code = make_code()
    points, undisturbed = live(tmp_path, "none", code, data)
    for first in range(1, points + 1):
        second = first + 1 + first % 2   # the very next point, or the one after it
        _, ended = live(tmp_path, f"p{first}-{second}", code, data, first, second)
        assert ended == undisturbed, f"crashes at points {first} and {second} of {points}"


def test_a_step_that_fails_for_the_machine_is_tried_again_and_then_explained(
    plane: Plane, make_code: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def full(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inferay.control.assets.shutil.copytree", full)
    answer = plane.http.put(
        "/v1/codes/c/versions/1", json={"properties": {"codeUri": str(make_code())}}
    )
    operation = answer.headers["Azure-AsyncOperation"].rsplit("/", 1)[-1]
    plane.turn()
    found = plane.http.get(f"/v1/operations/{operation}").json()
    assert (tries, found["status"]) == (3, "Failed")
    assert found["error"]["code"] == "StorageFull"
    assert "no space is left" in found["error"]["message"]
    assert plane.http.get("/v1/codes/c/versions/1").json()["properties"]["provisioningState"] == (
        "Failed"
    )


def test_a_second_put_waits_for_the_first(plane: Plane, make_code: Callable[..., Path]) -> None:
    deploy(plane, make_code())
    body = {"properties": {"description": "new"}}
    first = plane.http.put("/v1/batchEndpoints/digits", json=body)
    second = plane.http.put("/v1/batchEndpoints/digits", json=body)
    operation = first.headers["Azure-AsyncOperation"].rsplit("/", 1)[-1]
    assert (first.status_code, second.status_code) == (200, 409)
    assert operation in second.json()["error"]["message"]
    plane.turn()
    assert plane.http.put("/v1/batchEndpoints/digits", json=body).status_code == 200
