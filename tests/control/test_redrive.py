from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.batch.store import MemoryStore
from tests.control.conftest import Plane, deploy, invocation

#: Scores 2,000 items but for one that raises, one that hangs and two that take their worker along.
BROKEN = """
import ctypes, os, time

def init():
    pass

def run(mini_batch):
    for path in mini_batch:
        number = int(os.path.basename(path)[:4])
        if number == 17:
            raise ValueError("bad item")
        if number == 500:
            while True:
                time.sleep(1)
        if number == 501:
            ctypes.string_at(0)
        if number == 1999:
            leak = [bytearray(10 << 20) for _ in range(1000)]
    return [f"{os.path.basename(path)} {open(path).read()}" for path in mini_batch]
"""
FIXED = """
import os

def init():
    pass

def run(mini_batch):
    return [f"{os.path.basename(path)} {open(path).read()}" for path in mini_batch]
"""
SOME = """
import os

def init():
    pass

def run(mini_batch):
    if any(path.endswith(("03.txt", "11.txt")) for path in mini_batch):
        raise ValueError("poison")
    return [{"name": os.path.basename(path)} for path in mini_batch]
"""


def output(job: dict[str, Any], name: str = "predictions.csv") -> bytes:
    return (Path(job["outputs"]["score"]["path"]) / name).read_bytes()


def fix(plane: Plane, code: Path) -> None:
    """Let deployment `blue` have other code, under a new version."""
    plane.put("/v1/codes/digits/versions/2", {"properties": {"codeUri": str(code)}}) \
        .raise_for_status()
    path = "/v1/batchEndpoints/digits/deployments/blue"
    body = plane.http.get(path).json()["properties"]
    body = {key: value for key, value in body.items() if key != "provisioningState"}
    body["codeConfiguration"] = {"codeId": "azureml:digits:2", "scoringScript": "score.py"}
    plane.put(path, {"properties": body}).raise_for_status()


def spec_of(plane: Plane, job: str) -> dict[str, Any]:
    path = plane.workspace.job_folder(job) / "work/spec.json"
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def redrive(plane: Plane, job: str, **body: Any) -> Any:
    return plane.http.post(f"/v1/jobs/{job}/redrive", json=body)


@pytest.fixture
def failed(plane: Plane, make_code: Callable[..., Path], data: Path) -> str:
    """A completed job of 20 items, two of which failed; its deployment is fixed since."""
    deploy(plane, make_code(SOME), retrySettings={"maxRetries": 0})
    body = invocation(data, name="old", environmentVariables={"A": "1"})
    plane.http.post("/endpoints/digits/jobs", json=body)
    assert plane.wait("old")["progress"]["counts"]["itemsFailed"] == 2
    fix(plane, make_code(SOME.replace('("03.txt", "11.txt")', '("none",)')))
    return "old"


@pytest.mark.slow
def test_four_poison_items_of_2000_are_scored_by_the_fixed_script_and_put_in_order(
    plane: Plane, make_code: Callable[..., Path], tmp_path: Path
) -> None:
    data = tmp_path / "many"
    data.mkdir()
    for number in range(2_000):
        (data / f"{number:04d}.txt").write_text(str(number))
    retries = {"maxRetries": 0, "timeout": "PT1S"}
    deploy(plane, make_code(BROKEN), miniBatchSize=10, retrySettings=retries,
           maxConcurrencyPerInstance=2, properties={"inferay.worker_memory_mb": "150"})
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="broken"))
    broken = plane.wait("broken")
    assert broken["status"] == "Completed"
    errors = [json.loads(line) for line in output(broken, "errors.jsonl").splitlines()]
    assert [(error["item"], error["kind"]) for error in errors] == [
        ("0017.txt", "Exception"), ("0500.txt", "Timeout"), ("0501.txt", "Crashed"),
        ("1999.txt", "OutOfMemory"),
    ]
    fix(plane, make_code(FIXED))
    answer = redrive(plane, "broken", merge=True, properties={"name": "whole"})
    assert answer.status_code == 201
    whole = plane.wait("whole")
    assert (whole["status"], whole["redriveOf"]) == ("Completed", "broken")
    assert whole["progress"]["counts"]["itemsOk"] == 4
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="undisturbed"))
    undisturbed = plane.wait("undisturbed")
    assert output(whole) == output(undisturbed)
    assert output(whole) == b"".join(b"%04d.txt %d\n" % (n, n) for n in range(2_000))
    counts = [json.loads(output(job, "_SUCCESS.json"))["counts"] for job in (whole, undisturbed)]
    assert counts[0] == counts[1]


def test_the_failed_items_alone_are_a_job_of_their_own(plane: Plane, failed: str) -> None:
    name = redrive(plane, failed).json()["name"]
    job = plane.wait(name)
    assert job["status"] == "Completed"
    assert job["inputs"] == plane.job(failed)["inputs"]
    assert [json.loads(line)["name"] for line in output(job).splitlines()] == ["03.txt", "11.txt"]
    again = redrive(plane, name)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "NothingToRedrive")


def test_what_the_job_was_given_holds_for_its_redrive_unless_it_is_set_anew(
    plane: Plane, make_code: Callable[..., Path], data: Path
) -> None:
    deploy(plane, make_code(SOME), retrySettings={"maxRetries": 0})
    plane.http.post("/endpoints/digits/jobs", json=invocation(
        data, name="old", outputFileName="rows.jsonl", environmentVariables={"A": "1"},
        miniBatchSize=5,
    ))
    plane.wait("old")
    retries = {"maxRetries": 1}
    redrive(plane, "old", merge=True, properties={"name": "new", "retrySettings": retries})
    assert plane.wait("new")["error"]["code"] == "NoItemSucceeded"   # nothing was fixed
    spec = spec_of(plane, "new")
    assert spec["settings"]["output_file_name"] == "rows.jsonl"
    assert spec["settings"]["environment_variables"] == {"A": "1"}
    assert spec["settings"]["max_retries"] == 1
    assert spec["redrive"]["job"] == "old"


def test_a_redrive_keeps_the_settings_that_the_deployment_had(
    plane: Plane, failed: str
) -> None:
    path = "/v1/batchEndpoints/digits/deployments/blue"
    body = plane.http.get(path).json()["properties"]
    body = {key: value for key, value in body.items() if key != "provisioningState"} | {
        "outputFileName": "other.jsonl", "errorThreshold": 0, "miniBatchSize": 1,
        "retrySettings": {"maxRetries": 5, "timeout": "PT7S"}, "loggingLevel": "Debug",
    }
    plane.put(path, {"properties": body}).raise_for_status()
    own = {"retrySettings": {"timeout": "PT60S"}, "environmentVariables": {"B": "2"}}
    assert redrive(plane, failed, properties={"name": "new", **own}).status_code == 201
    assert plane.wait("new")["status"] == "Completed"
    was, is_ = (spec_of(plane, name) for name in (failed, "new"))
    assert was["settings"]["max_retries"] == 0
    assert is_["settings"] == was["settings"] | {
        "timeout_s": 60.0, "environment_variables": {"A": "1", "B": "2"},
    }
    assert is_["code"] != was["code"]


def test_a_redrive_without_a_body_is_a_plain_one(plane: Plane, failed: str) -> None:
    answer = plane.http.post(f"/v1/jobs/{failed}/redrive")
    assert answer.status_code == 201
    assert plane.wait(answer.json()["name"])["redriveOf"] == failed


def test_a_redrive_by_the_same_name_and_content_is_the_same_job(
    plane: Plane, failed: str
) -> None:
    body = {"merge": True, "properties": {"name": "new"}}
    answers = [redrive(plane, failed, **body) for _ in range(2)]
    other = redrive(plane, failed, properties={"name": "new"})
    assert [answer.status_code for answer in (*answers, other)] == [201, 200, 409]
    plane.wait("new")


def test_a_repeat_is_the_same_job_when_the_old_output_has_moved_since(
    plane: Plane, failed: str
) -> None:
    body = {"merge": True, "properties": {"name": "new"}}
    assert redrive(plane, failed, **body).status_code == 201
    plane.wait("new")
    (Path(plane.job(failed)["outputs"]["score"]["path"]) / "_SUCCESS.json").unlink()
    assert redrive(plane, failed, **body).status_code == 200
    assert redrive(plane, failed).status_code == 409


@pytest.mark.parametrize(("body", "status", "said"), [
    ({"properties": {"inputData": {"i": {"jobInputType": "UriFolder", "uri": "/x"}}}}, 400,
     "a redrive has the input of its job"),
    ({"merge": True, "properties": {"outputFileName": "rows.parquet"}}, 400,
     "rows.parquet has another format than predictions.csv of job old"),
    ({"merge": True, "properties": {"outputAction": "SummaryOnly"}}, 400,
     "output_action is summary_only, but job old had append_row"),
    ({"deploymentName": "none"}, 404, "none"),
    ({"merg": True}, 400, "did you mean 'merge'"),
    ({"merge": "maybe"}, 400, "merge"),
])
def test_what_cannot_be_redriven_is_refused_and_leaves_nothing(
    plane: Plane, failed: str, body: dict[str, Any], status: int, said: str
) -> None:
    answer = redrive(plane, failed, **body)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]["message"]
    assert len(plane.http.get("/v1/jobs").json()["value"]) == 1


def test_an_output_on_s3_that_exists_is_refused_and_leaves_nothing(
    plane: Plane, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = MemoryStore()
    taken.create("predictions.csv", b"theirs")
    monkeypatch.setattr("inferay.control.invoke.open_store", lambda where, access: taken)
    outputs = {"score": {"jobOutputType": "UriFolder", "uri": "s3://lake/taken"}}
    answer = redrive(plane, failed, properties={"outputData": outputs})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "OutputExists")
    assert len(plane.http.get("/v1/jobs").json()["value"]) == 1


def test_an_output_that_is_gone_or_a_job_that_failed_is_told(
    plane: Plane, failed: str, data: Path
) -> None:
    folder = Path(plane.job(failed)["outputs"]["score"]["path"])
    (folder / "_SUCCESS.json").unlink()
    answer = redrive(plane, failed)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "OutputMissing")
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="k"))
    answer = redrive(plane, "k")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "JobNotCompleted")
    plane.wait("k")
    assert redrive(plane, "nothing").status_code == 404
