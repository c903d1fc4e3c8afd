from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from inferay.control.tables import Deployment, Job
from tests.control.conftest import Plane, deploy, invocation


@pytest.fixture
def ready(plane: Plane, make_code: Callable[..., Path]) -> Plane:
    deploy(plane, make_code())
    return plane


def folder_input(path: Path | str, kind: str = "UriFolder") -> dict[str, Any]:
    return {"input": {"jobInputType": kind, "uri": str(path)}}


def output_at(path: Path | str) -> dict[str, Any]:
    return {"score": {"jobOutputType": "UriFolder", "uri": str(path)}}


def refused(plane: Plane, properties: dict[str, Any], **headers: str) -> tuple[int, str, str]:
    """Invoke; check that nothing was made; return status, code and message."""
    answer = plane.http.post(
        "/endpoints/digits/jobs", json={"properties": properties}, headers=headers
    )
    plane.turn()
    with plane.database.read() as session:
        assert session.scalars(select(Job)).all() == []
    for folder in ("workspaceartifactstore/ExperimentRun", "workspaceblobstore/azureml"):
        assert not (plane.workspace.datastores / folder).exists()
    assert plane.ray.submitted == []
    error = answer.json()["error"]
    assert "\n" not in error["message"]
    return answer.status_code, error["code"], error["message"]


def test_the_input_must_be_there_and_be_what_its_type_says(ready: Plane, data: Path) -> None:
    cases = [
        (folder_input(data / "none"), (400, "InputMissing"), "does not exist"),
        (folder_input("/" + "x" * 300), (400, "InputMissing"), "does not exist"),
        (folder_input(data / "00.txt" / "x"), (400, "InputMissing"), "does not exist"),
        (folder_input(data / "00.txt"), (400, "InvalidInput"), "is a file, but its type is uri_f"),
        (folder_input(data, "UriFile"), (400, "InvalidInput"), "is a folder, but its type is"),
        (folder_input("data"), (400, "InvalidInput"), "not an absolute path"),
        (folder_input("/a\0b"), (400, "InvalidInput"), "without NUL"),
        (folder_input("s3:///k"), (400, "InvalidInput"), "s3://BUCKET/KEY"),
        (folder_input("https://host/x"), (400, "InvalidInput"), "http has none to list"),
        (folder_input("ftp://host/x"), (400, "InvalidInput"), "'ftp'"),
        (folder_input("azureml:none:1"), (404, "NotFound"), "none"),
        (folder_input("azureml://datastores/none/paths/x"), (404, "NotFound"), "none"),
        (folder_input("azureml://datastores/workspaceblobstore/paths/../x"),
         (400, "InvalidInput"), "without '..'"),
    ]
    for given, (status, code), said in cases:
        found = refused(ready, {"inputData": given})
        assert found[:2] == (status, code), given
        assert said in found[2], given


AZURE = "/subscriptions/s/resourceGroups/r/providers/Microsoft.MachineLearningServices/workspaces/w"


@pytest.mark.parametrize("uri", [
    "azureml:rev:1", "azureml:rev@latest", f"{AZURE}/data/rev/versions/1",
    f"{AZURE.replace('sub', 'Sub')}/data/rev/versions/1", f"azureml:{AZURE}/data/rev/versions/1",
    f"{AZURE}/data/rev/labels/latest", "/workspaces/default/data/rev/versions/1",
])
def test_a_data_asset_is_an_input_by_any_of_its_names(ready: Plane, data: Path, uri: str) -> None:
    asset = {"properties": {"dataType": "uri_folder", "dataUri": str(data)}}
    ready.put("/v1/data/rev/versions/1", asset).raise_for_status()
    body = {"properties": {"inputData": folder_input(uri), "name": "j"}}
    answer = ready.http.post("/endpoints/digits/jobs", json=body)
    assert answer.status_code == 201, answer.text
    with ready.database.read() as session:
        assert (session.get_one(Job, "j").spec or {})["input"] == str(data)
    ready.wait("j")


def test_there_must_be_exactly_one_data_input(ready: Plane, data: Path) -> None:
    one = folder_input(data)["input"]
    for given in (
        {}, {"a": one, "b": one}, {"a": {"jobInputType": "Literal", "value": "x"}},
        {"a": one, "b": {"jobInputType": "Literal", "value": "x"}},
    ):
        status, code, message = refused(ready, {"inputData": given})
        assert (status, code) == (400, "InvalidInput")
        assert "exactly one data input" in message
    assert "uri: missing" in refused(
        ready, {"inputData": {"a": {"jobInputType": "UriFolder"}}}
    )[2]


def test_an_input_that_cannot_be_read_is_refused(
    ready: Plane, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(
        "os.access", lambda path, mode: Path(path) != data and access(path, mode)
    )
    status, _, message = refused(ready, {"inputData": folder_input(data)})
    assert (status, "permission denied" in message) == (400, True)


def test_the_output_must_be_a_place_that_is_free_and_can_be_written(
    ready: Plane, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o777)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "predictions.csv").write_text("x")
    (tmp_path / "closed").mkdir()
    access = os.access
    monkeypatch.setattr(
        "os.access", lambda path, mode: Path(path).name != "closed" and access(path, mode)
    )
    cases: list[tuple[Path | str, tuple[int, str], str]] = [
        (tmp_path / "file", (409, "OutputExists"), "is a file; give a folder"),
        (tmp_path / "file" / "inner", (409, "OutputExists"), "is a file; give a folder"),
        (tmp_path / "taken", (409, "OutputExists"), "never overwritten"),
        (tmp_path / "closed" / "deep" / "er", (400, "InvalidInput"), "permission denied"),
        (data, (400, "InvalidInput"), "lies in the input"),
        (data / "out", (400, "InvalidInput"), "lies in the input"),
        ("out", (400, "InvalidInput"), "not an absolute path"),
    ]
    for where, (status, code), said in cases:
        found = refused(ready, {
            "inputData": folder_input(data), "outputData": output_at(where),
        })
        assert found[:2] == (status, code), where
        assert said in found[2], where
    two = output_at(tmp_path / "a") | {"b": {"uri": str(tmp_path / "b")}}
    assert refused(ready, {"inputData": folder_input(data), "outputData": two})[0] == 400
    assert (tmp_path / "taken" / "predictions.csv").read_text() == "x"
    assert not (tmp_path / "closed" / "deep").exists()


def test_the_deployment_must_be_there_and_ready(ready: Plane, data: Path) -> None:
    given = {"inputData": folder_input(data)}
    status, _, message = refused(ready, given, **{"azureml-model-deployment": "bleu"})
    assert (status, "did you mean 'blue'" in message) == (404, True)
    for state in ("Failed", "Creating", "Deleting"):
        with ready.database.write() as session:
            session.get_one(Deployment, ("digits", "blue")).state = state
        status, _, message = refused(ready, given)
        assert status == (404 if state == "Deleting" else 409)
        assert "blue" in message


def test_an_endpoint_without_a_default_says_how_to_set_one(plane: Plane, data: Path) -> None:
    plane.put("/v1/batchEndpoints/digits", {"properties": {}})
    status, _, message = refused(plane, {"inputData": folder_input(data)})
    assert status == 400
    assert "inferay batch-endpoint update -n digits --defaults deployment_name=NAME" in message


@pytest.mark.parametrize(("more", "said"), [
    ({"miniBatchSize": 0}, "miniBatchSize"),
    ({"miniBatchSiz": 1}, "did you mean 'miniBatchSize'"),
    ({"errorThreshold": -2}, "errorThreshold"),
    ({"outputFileName": "a/b.csv"}, "outputFileName"),
    ({"outputFileName": "_SUCCESS.json"}, "outputFileName"),
    ({"outputFileName": "rows.arrow"}, "output_file_name"),
    ({"name": "../x"}, "name"),
    ({"name": "x" * 300}, "name"),
    ({"name": "x" * 240}, "the job name"),
    ({"retrySettings": {"timeout": "soon"}}, "timeout"),
    ({"environmentVariables": {"A=B": "c"}}, "environmentVariables"),
    ({"resources": {"instanceType": "Standard_E2s_v9"}}, "unknown instance type"),
    ({"compute": {"instanceType": "Standard_NC6s_v3"}}, "has 1 GPUs"),
    ({"compute": {"Target": "other"}}, "compute.target: expected none, got 'other': a job runs on"),
    ({"resources": {"target": "other"}}, "resources.target"),
])
def test_a_wrong_setting_is_named(
    ready: Plane, data: Path, more: dict[str, Any], said: str
) -> None:
    status, _, message = refused(ready, {"inputData": folder_input(data), **more})
    assert (status, said in message) == (400, True)


def test_a_repeatability_id_must_be_a_guid(ready: Plane, data: Path) -> None:
    found = refused(
        ready, {"inputData": folder_input(data)}, **{"repeatability_request-id": "../x"}
    )
    assert found[0] == 400


def test_a_jobs_own_settings_win_over_the_deployments(
    ready: Plane, data: Path, tmp_path: Path
) -> None:
    body = invocation(
        data, name="j", miniBatchSize=7, retrySettings={"maxRetries": 2}, outputFileName="r.csv",
        environmentVariables={"A": "b"}, resources={"instanceCount": 2},
        outputData=output_at(tmp_path / "out"),
    )
    assert ready.http.post("/endpoints/digits/jobs", json=body).status_code == 201
    with ready.database.read() as session:
        spec = session.get_one(Job, "j").spec or {}
    settings = spec["settings"]
    assert (settings["mini_batch_size"], settings["max_retries"]) == (7, 2)
    assert (settings["timeout_s"], settings["output_file_name"]) == (30.0, "r.csv")
    assert (settings["environment_variables"], spec["workers"]["count"]) == ({"A": "b"}, 2)
    assert ready.wait("j")["status"] == "Completed"
    assert (tmp_path / "out" / "r.csv").exists()


@pytest.mark.parametrize("more", [
    {"properties": None}, {"tags": None}, {"inputData": None, "InputData": ...},
    {"DESCRIPTION": "x", "Tags": {"a": 1}, "RetrySettings": {"Timeout": "PT60S"}},
])
def test_however_an_invocation_is_written_its_job_can_be_looked_at(
    ready: Plane, data: Path, more: dict[str, Any]
) -> None:
    inputs = {"input": {"JobInputType": "uri_folder", "Uri": str(data), "value": None}}
    given = {"inputData": inputs, "name": "j", **more}
    body = {"properties": {key: inputs if value is ... else value for key, value in given.items()}}
    answer = ready.http.post("/endpoints/digits/jobs", json=body)
    assert answer.status_code == 201
    assert ready.job("j")["inputs"] == folder_input(data)
    for path in ("/v1/jobs", "/v1/batchEndpoints/digits/jobs"):
        job, = ready.http.get(path).json()["value"]
        assert job["properties"]["inputs"] == folder_input(data)
        assert job["properties"]["tags"] == ({"a": "1"} if "Tags" in more else {})
    with ready.database.read() as session:
        spec = session.get_one(Job, "j").spec or {}
    assert spec["settings"]["timeout_s"] == (60.0 if "RetrySettings" in more else 30.0)
    ready.wait("j")


@pytest.mark.parametrize("place", ["resources", "compute"])
def test_a_job_has_workers_of_the_instance_type_that_it_asks_for(
    ready: Plane, data: Path, place: str
) -> None:
    body = invocation(data, name="j", **{place: {"instanceType": "Standard_F2s_v2"}})
    assert ready.http.post("/endpoints/digits/jobs", json=body).status_code == 201
    with ready.database.read() as session:
        spec = session.get_one(Job, "j").spec or {}
    assert spec["workers"]["memory_bytes"] == 4 << 30
    ready.wait("j")


def scorer(plane: Plane) -> str:
    body = {"name": "s", "role": "scorer", "endpoint": "digits"}
    token: str = plane.http.post("/v1/tokens", json=body).json()["token"]
    return token


def uploaded(plane: Plane) -> dict[str, Any]:
    begun = plane.http.post("/v1/uploads").json()
    plane.http.put(f"/v1/uploads/{begun['name']}/d/1.txt", content=b"1")
    return {"input": {"jobInputType": "UriFolder", "uri": f"{begun['uri']}/d"}}


def test_a_scorer_may_not_run_code_by_environment_variables(ready: Plane) -> None:
    client = ready.client(scorer(ready))
    body: dict[str, Any] = {"properties": {"inputData": uploaded(ready)}}
    body["properties"]["environmentVariables"] = {"PYTHONPATH": "/tmp/evil"}
    answer = client.post("/endpoints/digits/jobs", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "Forbidden")
    body["properties"]["environmentVariables"] = {}
    assert client.post("/endpoints/digits/jobs", json=body).status_code == 201


def test_a_scorer_may_not_name_the_work_and_logs_of_jobs(
    ready: Plane, data: Path
) -> None:
    ready.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
    ready.wait("j")
    client = ready.client(scorer(ready))
    store = "azureml://datastores/workspaceartifactstore/paths/ExperimentRun/dcid.j"
    body: dict[str, Any] = {"properties": {"inputData": folder_input(f"{store}/work")}}
    assert client.post("/endpoints/digits/jobs", json=body).status_code == 403
    body = {"properties": {"inputData": uploaded(ready), "outputData": output_at(f"{store}/x")}}
    assert client.post("/endpoints/digits/jobs", json=body).status_code == 403
