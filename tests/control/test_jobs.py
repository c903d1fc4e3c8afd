from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from inferay.control.tables import Job, Operation
from tests.control.conftest import Plane, deploy, invocation

SLOW = """
import time

def init():
    pass

def run(mini_batch):
    time.sleep(0.3)
    return mini_batch
"""


def test_an_invocation_becomes_rows_in_input_order(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code())
    answer = plane.http.post("/endpoints/digits/jobs", json=invocation(data))
    assert answer.status_code == 201
    job = plane.wait(answer.json()["name"])
    assert job["status"] == "Completed"
    rows = (Path(job["outputs"]["score"]["path"]) / "predictions.csv").read_text().splitlines()
    assert rows == [f"{number:02d}.txt" for number in range(20)]
    assert job["progress"]["counts"]["itemsOk"] == 20


def test_an_invocation_by_the_same_name_and_content_is_the_same_job(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code())
    first = plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="once"))
    again = plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="once"))
    other = plane.http.post(
        "/endpoints/digits/jobs", json=invocation(data, name="once", miniBatchSize=2)
    )
    assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
    assert "taken" in other.json()["error"]["message"]
    plane.wait("once")
    assert plane.ray.submitted == ["once"]


def test_a_repeatability_id_names_the_job(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code())
    key = "6f1ed002-ab5f-4c1d-8c4e-0d5a0d9f2a11"
    names = [
        plane.http.post(
            "/endpoints/digits/jobs", json=invocation(data),
            headers={"repeatability_request-id": key},
        ).json()["name"]
        for _ in range(2)
    ]
    assert names == [key, key]
    other = plane.http.post(
        "/endpoints/digits/jobs", json=invocation(data, miniBatchSize=2),
        headers={"repeatability_request-id": key},
    )
    assert other.status_code == 409
    assert f"{key} is that of job '{key}'" in other.json()["error"]["message"]
    plane.wait(key)
    assert plane.ray.submitted == [key]


def test_a_job_named_as_another_jobs_resume_is_refused(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code())
    answer = plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j-e1"))
    assert answer.status_code == 400
    assert "choose another name" in answer.json()["error"]["message"]


def test_a_job_whose_driver_died_is_resumed_and_loses_nothing(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code())
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
    plane.ray.submit = lambda *_: plane.ray.known.update({"j": "gone"})   # dies before it begins
    plane.turn()
    plane.turn()
    assert plane.job("j")["status"] == "Queued"
    del plane.ray.submit
    job = plane.wait("j")
    assert (job["status"], job["resumes"]) == ("Completed", 1)
    assert plane.ray.submitted == ["j-e1"]


def test_a_driver_that_dies_again_and_again_fails_its_job(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code())
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
    plane.ray.submit = lambda key, *_: plane.ray.known.update({key: "gone"})
    job = plane.wait("j")
    assert (job["status"], job["error"]["code"]) == ("Failed", "DriverDied")


def test_a_job_goes_on_after_the_ray_head_was_lost(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code(SLOW), miniBatchSize=10)
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
    plane.wait("j", "Running")
    plane.ray.is_away = True
    plane.turn()
    assert plane.job("j")["status"] == "Running"
    plane.ray.close()   # whatever it did until it was lost
    plane.ray.forget()
    plane.ray.is_away = False
    plane.restart()
    assert plane.wait("j")["status"] == "Completed"


def test_a_job_whose_input_changed_while_its_driver_was_dead_says_so_and_can_go_on_when_undone(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code(SLOW), miniBatchSize=1)
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
    while (plane.job("j")["progress"] or {}).get("counts", {}).get("rows", 0) < 2:
        plane.turn()
    plane.ray.end_drivers()
    found = (data / "07.txt").stat()
    (data / "07.txt").write_text("changed")
    job = plane.wait("j")
    assert (job["status"], job["error"]["code"]) == ("Failed", "InputChanged")
    assert "07.txt had 1 bytes of" in job["error"]["message"]
    assert plane.ray.submitted == ["j", "j-e1"]   # it was not tried again
    output = Path(job["outputs"]["score"]["path"])
    assert [path.name for path in output.iterdir()] == ["predictions.csv.partial"]
    (data / "07.txt").write_text("7")
    os.utime(data / "07.txt", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert plane.http.post("/v1/jobs/j/resume").status_code == 200
    assert plane.wait("j")["status"] == "Completed"
    rows = (output / "predictions.csv").read_text().split()
    assert [Path(row).name for row in rows] == [f"{number:02d}.txt" for number in range(20)]


def test_a_canceled_job_ends_and_keeps_its_rows_under_partial(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code(SLOW), miniBatchSize=1)
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
    while (plane.job("j")["progress"] or {}).get("counts", {}).get("rows", 0) < 2:
        plane.turn()
    assert plane.http.post("/v1/jobs/j/cancel").json()["properties"]["status"] == "CancelRequested"
    job = plane.wait("j")
    assert job["status"] == "Canceled"
    names = [path.name for path in Path(job["outputs"]["score"]["path"]).iterdir()]
    assert names == ["predictions.csv.partial"]
    assert plane.http.post("/v1/jobs/j/cancel").status_code == 200   # idempotent


def test_a_queued_job_is_canceled_without_ever_running(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code())
    plane.ray.is_away = True
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
    plane.turn()
    plane.http.post("/v1/jobs/j/cancel")
    plane.ray.is_away = False
    assert plane.wait("j")["status"] == "Canceled"
    assert plane.ray.submitted == []


def test_a_canceled_job_can_be_resumed_to_its_end(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code(SLOW), miniBatchSize=4)
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
    plane.wait("j", "Running")
    plane.http.post("/v1/jobs/j/cancel")
    plane.wait("j", "Canceled")
    assert plane.http.post("/v1/jobs/j/resume").status_code == 200
    job = plane.wait("j")
    assert job["status"] == "Completed"
    rows = (Path(job["outputs"]["score"]["path"]) / "predictions.csv").read_text().splitlines()
    assert [row.rsplit("/", 1)[-1] for row in rows] == [f"{n:02d}.txt" for n in range(20)]
    assert plane.http.post("/v1/jobs/j/resume").status_code == 409


def test_a_job_whose_spec_found_no_space_can_be_resumed(
    plane: Plane, make_code: Callable[..., Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    deploy(plane, make_code())
    with monkeypatch.context() as patch:
        patch.setattr("inferay.jobs.folder.JobFolder.write_spec", full)
        plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
        plane.turn()
    job = plane.job("j")
    assert (job["status"], job["error"]["code"]) == ("Failed", "StorageFull")
    plane.http.post("/v1/jobs/j/resume").raise_for_status()
    assert plane.wait("j")["status"] == "Completed"


def test_an_empty_folder_fails_the_job_at_once(
    plane: Plane, make_code: Callable[..., Path], tmp_path: Path
) -> None:
    deploy(plane, make_code())
    (tmp_path / "empty").mkdir()
    name = plane.http.post(
        "/endpoints/digits/jobs", json=invocation(tmp_path / "empty")
    ).json()["name"]
    job = plane.wait(name)
    assert (job["status"], job["error"]["code"]) == ("Failed", "NoInput")
    assert plane.ray.submitted == []


def test_two_live_jobs_cannot_write_to_one_place(
    plane: Plane, make_code: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    deploy(plane, make_code(SLOW))
    output = {"score": {"jobOutputType": "UriFolder", "uri": str(tmp_path / "out")}}
    body = invocation(data, outputData=output)
    first = plane.http.post("/endpoints/digits/jobs", json=body)
    second = plane.http.post("/endpoints/digits/jobs", json=body)
    assert (first.status_code, second.status_code) == (201, 409)
    plane.wait(first.json()["name"])
    third = plane.http.post("/endpoints/digits/jobs", json=body)
    assert third.status_code == 409
    assert "never overwritten" in third.json()["error"]["message"]


def test_deleting_an_endpoint_cancels_its_jobs_and_keeps_their_record(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code(SLOW), miniBatchSize=1)
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
    plane.wait("j", "Running")
    assert plane.http.delete("/v1/batchEndpoints/digits").status_code == 202
    assert plane.wait("j")["status"] == "Canceled"
    assert plane.http.get("/v1/batchEndpoints/digits").status_code == 404


def test_every_operation_is_a_row_that_ends(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code())
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
    plane.wait("j")
    with plane.database.read() as session:
        rows = list(session.scalars(select(Operation)))
        job = session.get_one(Job, "j")
    kinds = {"endpoint.put", "asset.put", "deployment.put", "job.start"}
    assert {row.kind for row in rows} == kinds
    assert {row.status for row in rows} == {"Succeeded"}
    assert job.ended_at is not None
