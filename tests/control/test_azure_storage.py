"""Datastores on Azure's blob storage, and jobs over what lies in them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.azurite import ACCOUNT, Azurite, Container
from tests.control.conftest import Plane, deploy
from tests.control.test_storage import invoke

SECRET = base64.b64encode(b"ein-geheimnis-das-niemand-sieht").decode()


def body_of(container: Container, **more: Any) -> dict[str, Any]:
    return {"properties": {
        "datastoreType": "AzureBlob", "accountName": ACCOUNT, "containerName": container.name,
        "endpoint": container.place.endpoint_url,
        "credentials": {"credentialsType": "AccountKey", "secrets": {
            "secretsType": "AccountKey", "key": container.place.account_key,
        }},
        **more,
    }}


def some(**more: Any) -> dict[str, Any]:
    return {"properties": {
        "datastoreType": "AzureBlob", "accountName": "lake", "containerName": "box",
        "credentials": {"credentialsType": "AccountKey",
                        "secrets": {"secretsType": "AccountKey", "key": SECRET}},
        **more,
    }}


@pytest.fixture
def ready(plane: Plane, make_code: Callable[..., Path]) -> Plane:
    deploy(plane, make_code())
    return plane


def test_the_key_of_an_account_is_nowhere_in_plain(plane: Plane) -> None:
    answer = plane.put("/v1/datastores/blobs", some())
    assert answer.status_code == 201
    shown = plane.http.get("/v1/datastores/blobs").json()["properties"]
    assert (shown["accountName"], shown["containerName"]) == ("lake", "box")
    assert shown["credentials"] == {"credentialsType": "AccountKey"}
    assert SECRET not in answer.text + json.dumps(shown)
    for path in plane.workspace.home.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(("more", "said"), [
    ({"containerName": "A_b"}, "container_name: expected 3 to 63"),
    ({"accountName": "Lake-1"}, "account_name: expected 3 to 24"),
    ({"endpoint": "core windows"}, "endpoint: expected a domain such as core.windows.net"),
    ({"protocol": "ftp"}, "protocol: expected https or http"),
    ({"credentials": {"credentialsType": "AccountKey", "secrets": {"key": "n@t base64"}}},
     "account_key: expected the account's key as Azure shows it"),
    ({"credentials": {"credentialsType": "ServicePrincipal", "clientId": "c",
                      "secrets": {"clientSecret": "geheim"}}},
     "tenant_id and client_id and client_secret, which belong together"),
    ({"credentials": {"credentialsType": "AccessKey", "accessKeyId": "c",
                      "secrets": {"secretAccessKey": "geheim"}}},
     "got access_key_id and secret_access_key"),
])
def test_a_container_that_cannot_be_is_refused(
    plane: Plane, more: dict[str, Any], said: str
) -> None:
    answer = plane.http.put("/v1/datastores/blobs", json=some(**more))
    assert (answer.status_code, answer.json()["error"]["message"].count("\n")) == (400, 0)
    assert said in answer.json()["error"]["message"]
    assert "geheim" not in answer.text


def test_without_the_package_a_datastore_is_refused_with_what_to_install(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "adlfs", None)
    answer = plane.http.put("/v1/datastores/blobs", json=some())
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "PackageMissing")
    assert "pip install 'inferay[azure]'" in answer.json()["error"]["message"]


def test_a_job_over_a_container_by_any_of_its_addresses(
    ready: Plane, container: Container, azurite: Azurite
) -> None:
    container.put({f"in/{number:03d}.txt": b"x" for number in range(6)})
    ready.put("/v1/datastores/blobs", body_of(container)).raise_for_status()
    address = container.uri.removeprefix("abfs://")
    scorer = ready.http.post("/v1/tokens", json={"name": "s", "role": "scorer"}).json()["token"]
    for number, uri in enumerate((
        "azureml://datastores/blobs/paths/in",
        f"wasbs://{address.replace('.dfs.', '.blob.')}/in",
        f"{azurite.account_url}/{container.name}/in",
    )):
        output = {"score": {
            "jobOutputType": "UriFolder", "uri": f"azureml://datastores/blobs/paths/out{number}",
        }}
        body = {"properties": {
            "inputData": {"input": {"jobInputType": "UriFolder", "uri": uri}},
            "outputData": output,
        }}
        answer = ready.client(scorer).post("/endpoints/digits/jobs", json=body)
        assert answer.status_code == 201, answer.text
        name = answer.json()["name"]
        job = ready.wait(name)
        assert job["status"] == "Completed", job
        rows = "".join(f"{number:03d}.txt\n" for number in range(6)).encode()
        assert container.blobs(f"out{number}/predictions")[f"out{number}/predictions.csv"] == rows
        assert container.place.account_key not in json.dumps(job)
        files = f"/v1/jobs/{name}/outputs/score/files/predictions.csv"
        assert ready.http.get(files).content == rows
        assert not ready.workspace.access_file(name).exists()
    again = invoke(ready, "azureml://datastores/blobs/paths/in", outputData=output)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "OutputExists")


def test_what_is_not_there_or_not_allowed_is_refused_in_one_line(
    ready: Plane, container: Container
) -> None:
    container.put({"in/000.txt": b"x"})
    ready.put("/v1/datastores/blobs", body_of(container)).raise_for_status()
    wrong = body_of(container, credentials={
        "credentialsType": "AccountKey", "secrets": {"key": SECRET},
    }, prefix="x")
    ready.put("/v1/datastores/wrong", wrong).raise_for_status()
    gone = body_of(container, containerName="no-such-container")
    ready.put("/v1/datastores/gone", gone).raise_for_status()
    for uri, kind, status, code in (
        ("blobs/paths/none", "UriFolder", 400, "InputMissing"),
        ("blobs/paths/in", "UriFile", 400, "InvalidInput"),
        ("blobs/paths/in/000.txt", "UriFolder", 400, "InvalidInput"),
        ("wrong/paths/any", "UriFile", 400, "AccessDenied"),
        ("gone/paths/in", "UriFolder", 404, "BucketMissing"),
    ):
        answer = invoke(ready, f"azureml://datastores/{uri}", kind)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code), error
        assert "\n" not in error["message"]
        assert SECRET not in answer.text
    assert ready.ray.submitted == []


def test_a_model_and_code_on_azure_are_copied_when_they_are_registered(
    plane: Plane, container: Container
) -> None:
    plane.put("/v1/datastores/blobs", body_of(container)).raise_for_status()
    container.put({
        "model/weights/a.bin": b"factor", "in/1": b"", "src/score.py": (
            b"import os\n"
            b"def init():\n"
            b"    global text\n"
            b"    text = open(os.environ['AZUREML_MODEL_DIR'] + '/model/weights/a.bin').read()\n"
            b"def run(mini_batch):\n"
            b"    return [text for path in mini_batch]\n"
        ),
    })
    model = {"properties": {"modelUri": "azureml://datastores/blobs/paths/model"}}
    plane.put("/v1/models/m/versions/1", model).raise_for_status()
    deploy(
        plane, f"{container.uri}/src",   # type: ignore[arg-type]
        model={"referenceType": "Id", "assetId": "azureml:m:1"},
    )
    made = invoke(plane, f"{container.uri}/in").json()
    assert plane.wait(made["name"])["status"] == "Completed"
    rows = plane.workspace.output_folder(made["name"]) / "predictions.csv"
    assert rows.read_text() == "factor\n"
