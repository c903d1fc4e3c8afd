"""What can go wrong between the watcher, the operations and requests, one interleaving each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferay.control.tables import Job
from inferay.engine.batch.journal import claim
from inferay.errors import InferayError
from inferay.jobs.folder import JobFolder
from tests.control.conftest import Plane, deploy, invocation


class ScriptedJobs:
    """Ray's job API with drivers that do nothing until the test says so."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.submitted: list[str] = []
        self.stopped: list[str] = []

    def submit(self, submission_id: str, entrypoint: str, env: dict[str, str]) -> None:
        self.submitted.append(submission_id)
        self.known.setdefault(submission_id, "alive")

    def drivers(self) -> dict[str, str]:
        return dict(self.known)

    def message(self, submission_id: str) -> str:
        return "it died"

    def stop(self, submission_id: str) -> None:
        self.stopped.append(submission_id)
        self.known[submission_id] = "gone"

    def close(self) -> None:
        pass


class Driven(Plane):
    """A plane with one job `j` and a hand on its drivers."""

    ray: ScriptedJobs

    @property
    def folder(self) -> JobFolder:
        return JobFolder(self.workspace.job_folder("j"))

    def claim(self, epoch: int) -> None:
        _, log = claim(self.folder.work, {}, epoch=epoch)
        log.close()

    def advance(self, epoch: int, done: int, state: str = "Running") -> None:
        progress = {"epoch": epoch, "state": state, "counts": {"mini_batches_done": done}}
        self.folder.work.replace("progress.json", json.dumps(progress).encode())

    def end(self, epoch: int, status: str) -> None:
        self.folder.work.create(f"result/{epoch}.json", json.dumps({"status": status}).encode())
        self.die(epoch)

    def die(self, epoch: int) -> None:
        self.ray.known["j" if epoch == 1 else f"j-e{epoch - 1}"] = "gone"

    @property
    def status(self) -> str:
        found: str = self.job("j")["status"]
        return found


@pytest.fixture
def plane(tmp_path: Path) -> Any:
    plane = Driven(tmp_path / "home", ScriptedJobs())
    yield plane
    plane.close()


@pytest.fixture
def driven(plane: Driven, make_code: Callable[..., Path], data: Path) -> Driven:
    deploy(plane, make_code())
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j")).raise_for_status()
    plane.turn()
    assert plane.ray.submitted == ["j"]
    return plane


def test_a_look_between_a_resume_and_its_operation_does_not_end_the_job_again(
    driven: Driven,
) -> None:
    driven.end(1, "Canceled")
    driven.turn()
    assert driven.status == "Canceled"
    assert driven.http.post("/v1/jobs/j/resume").status_code == 200
    driven.watcher.look()   # the loop looks before the operation's thread has done its steps
    assert driven.status == "NotStarted"
    driven.turn()
    driven.turn()
    assert driven.ray.submitted == ["j", "j-e1"]


def test_a_driver_that_is_quicker_than_the_next_look_at_ray_is_alive(driven: Driven) -> None:
    driven.claim(1)   # within the second for which Ray's list of before is used
    driven.watcher.look()
    assert (driven.status, driven.job("j")["resumes"]) == ("Queued", 0)


def test_drivers_that_die_but_get_on_are_followed_for_ever(driven: Driven) -> None:
    for epoch in range(1, 12):
        driven.claim(epoch)
        driven.advance(epoch, done=epoch)
        driven.turn()   # the progress is known before the driver dies
        driven.die(epoch)
        driven.turn()
        driven.turn()
    assert driven.status == "Queued"
    assert len(driven.ray.submitted) == 12


def test_drivers_that_die_where_the_last_one_did_are_given_up(driven: Driven) -> None:
    for epoch in range(1, 12):
        if driven.status == "Failed":
            break
        driven.claim(epoch)
        driven.advance(epoch, done=0, state="Preparing")
        driven.turn()
        driven.advance(epoch, done=7)   # what the journal had already
        driven.turn()
        driven.die(epoch)
        driven.turn()
        driven.turn()
    assert (driven.status, driven.job("j")["error"]["code"]) == ("Failed", "DriverDied")
    assert len(driven.ray.submitted) == 7   # the first, and six that got no further


def test_a_cancel_ends_even_if_the_rows_so_far_cannot_be_kept(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(spec: object, access: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inferay.control.jobs.publish_partial", fail)
    driven.http.post("/v1/jobs/j/cancel")
    driven.die(1)
    driven.turn()
    assert driven.status == "Canceled"


def test_a_driver_that_does_not_heed_a_cancel_is_stopped_by_ray(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferay.control.jobs.CANCEL_STOP_S", -1.0)
    driven.http.post("/v1/jobs/j/cancel")
    driven.turn()
    assert (driven.ray.stopped, driven.folder.work.exists("cancel")) == (["j"], True)
    driven.turn()
    assert driven.status == "Canceled"


def test_a_cancel_during_a_look_is_not_lost(driven: Driven) -> None:
    driven.claim(1)
    driven.advance(1, 1)
    look = driven.watcher._look_at

    def cancel_then_look(job: Job) -> None:
        driven.http.post("/v1/jobs/j/cancel").raise_for_status()
        look(job)   # with the row as it was before

    driven.watcher._look_at = cancel_then_look   # type: ignore[method-assign]
    driven.watcher.look()
    assert driven.status == "CancelRequested"
    driven.watcher._look_at = look   # type: ignore[method-assign]
    driven.die(1)
    driven.turn()
    assert driven.status == "Canceled"
    assert driven.ray.submitted == ["j"]


def test_deleting_the_endpoint_says_that_its_jobs_are_to_end(driven: Driven) -> None:
    driven.http.delete("/v1/batchEndpoints/digits")
    for key in driven.runner.due():
        driven.runner.drive(key)
    assert driven.status == "CancelRequested"


@pytest.fixture
def queued(plane: Driven, make_code: Callable[..., Path], data: Path) -> Driven:
    """A plane with a job whose driver is to be submitted."""
    deploy(plane, make_code())
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j")).raise_for_status()
    for key in plane.runner.due():
        plane.runner.drive(key)
    return plane


def test_a_job_whose_credentials_cannot_be_read_fails_and_can_be_resumed(
    queued: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise InferayError("the key is another one", code="CredentialsUnreadable")

    with monkeypatch.context() as patch:
        patch.setattr("inferay.control.jobs.access_of", fail)
        queued.turn()
    assert queued.status == "Failed"
    assert queued.job("j")["error"]["code"] == "CredentialsUnreadable"
    queued.http.post("/v1/jobs/j/resume").raise_for_status()
    queued.turn()
    assert (queued.status, queued.ray.submitted) == ("Queued", ["j-e1"])


@pytest.mark.parametrize(("error", "code"), [
    (OSError(28, "No space left on device"), "StorageFull"), (ValueError("?"), "InternalError"),
])
def test_a_job_that_cannot_be_submitted_fails_after_a_few_tries(
    queued: Driven, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(queued.watcher, "_write_access", fail)
    queued.turn()
    assert queued.status == "Queued"   # it may pass
    for _ in range(2):
        queued.turn()
    assert (queued.status, queued.job("j")["error"]["code"]) == ("Failed", code)
    assert queued.ray.submitted == []
