from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferay.control import verification
from inferay.control.tables import Job
from tests.control.conftest import Plane, deploy, invocation


def verify(plane: Plane, name: str) -> list[dict[str, Any]]:
    answer = plane.http.get(f"/v1/jobs/{name}/verify")
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines() if line]


@pytest.fixture
def done(plane: Plane, make_code: Callable[..., Path], data: Path) -> Path:
    """The output of a completed job `j`."""
    deploy(plane, make_code())
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
    return Path(plane.wait("j")["outputs"]["score"]["path"])


def test_a_job_is_what_it_was_until_something_changes(plane: Plane, done: Path) -> None:
    found = verify(plane, "j")
    assert {check["status"] for check in found} == {"ok"}
    assert [check["name"] for check in found] == [
        "_SUCCESS.json", "output/predictions.csv", "settings", "code", "code as registered",
        "manifest", "input",
    ]
    (done / "predictions.csv").write_text("other")
    different = [check["name"] for check in verify(plane, "j") if check["status"] != "ok"]
    assert different == ["output/predictions.csv"]


def test_only_a_completed_job_can_be_verified(plane: Plane, done: Path, data: Path) -> None:
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="k"))
    answer = plane.http.get("/v1/jobs/k/verify")
    assert answer.status_code == 409
    assert "only a completed job can be verified" in answer.json()["error"]["message"]
    plane.wait("k")


def test_verifications_wait_for_their_turn_but_not_for_ever(
    plane: Plane, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = threading.BoundedSemaphore(1)
    monkeypatch.setattr(verification, "_turns", turns)
    monkeypatch.setattr(verification, "TURN_S", 0.0)
    monkeypatch.setattr(verification, "HEARTBEAT_S", 0.01)
    turns.acquire()
    (line,) = verify(plane, "j")
    assert "try again later" in line["error"]["message"]
    turns.release()
    assert len(verify(plane, "j")) == 7
    assert len(verify(plane, "j")) == 7   # the turn was given back


def test_a_caller_that_goes_away_ends_the_verification(plane: Plane, done: Path) -> None:
    with plane.database.read() as session:
        job = session.get_one(Job, "j")
    lines = verification.verification(plane.context, job)
    next(lines)
    lines.close()   # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name == "verify-j":
            thread.join(10)
            assert not thread.is_alive()
