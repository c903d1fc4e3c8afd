"""Datastores on S3: their secrets, and jobs over what lies in them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferay.engine.storage.filesystems import open_filesystem
from tests.control.conftest import Plane, deploy
from tests.http_site import Site
from tests.radosgw import Bucket

SECRET = "ein-geheimnis-das-niemand-sieht"


def body_of(bucket: Bucket, **more: Any) -> dict[str, Any]:
    place = bucket.access.places[0]
    return {"properties": {
        "datastoreType": "S3", "bucket": bucket.uri.removeprefix("s3://"),
        "endpointUrl": place.endpoint_url, "region": place.region,
        "credentials": {
            "credentialsType": "AccessKey", "accessKeyId": place.access_key_id,
            "secrets": {"secretsType": "AccessKey", "secretAccessKey": place.secret_access_key},
        },
        **more,
    }}


def some(name: str = "lake", **more: Any) -> dict[str, Any]:
    return {"properties": {
        "datastoreType": "S3", "bucket": name, "endpointUrl": "http://127.0.0.1:9",
        "credentials": {
            "credentialsType": "AccessKey", "accessKeyId": "id",
            "secrets": {"secretsType": "AccessKey", "secretAccessKey": SECRET},
        },
        **more,
    }}


def fill(bucket: Bucket, count: int) -> None:
    filesystem, name = open_filesystem(bucket.uri, bucket.access)
    filesystem.pipe({f"{name}/in/{number:03d}.txt": b"x" for number in range(count)})


def invoke(plane: Plane, uri: str, kind: str = "UriFolder", **more: Any) -> httpx.Response:
    inputs = {"input": {"jobInputType": kind, "uri": uri}}
    answer: httpx.Response = plane.http.post(
        "/endpoints/digits/jobs", json={"properties": {"inputData": inputs, **more}}
    )
    return answer


@pytest.fixture
def ready(plane: Plane, make_code: Callable[..., Path]) -> Plane:
    deploy(plane, make_code())
    return plane


def test_the_secrets_of_a_datastore_are_nowhere_in_plain(plane: Plane) -> None:
    answer = plane.put("/v1/datastores/lake", some(prefix="a/b"))
    assert answer.status_code == 201
    shown = plane.http.get("/v1/datastores/lake").json()["properties"]
    assert (shown["bucket"], shown["prefix"]) == ("lake", "a/b")
    assert shown["credentials"] == {"credentialsType": "AccessKey", "accessKeyId": "id"}
    listed = plane.http.get("/v1/datastores").text
    assert SECRET not in answer.text + json.dumps(shown) + listed
    for path in plane.workspace.home.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    assert plane.workspace.storage_key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("more", "status", "said"), [
    ({"bucket": "a/b"}, 400, "s3://BUCKET"),
    ({"prefix": "../x"}, 400, "'..'"),
    ({"endpointUrl": "s3://x"}, 400, "endpoint_url"),
    ({"endpointUrl": "https://user:geheim@host"}, 400, "user name or password"),
    ({"credentials": {"credentialsType": "AccessKey", "accessKeyId": "id"}}, 400, "together"),
])
def test_a_datastore_that_cannot_be_is_refused(
    plane: Plane, more: dict[str, Any], status: int, said: str
) -> None:
    answer = plane.http.put("/v1/datastores/lake", json=some(**more))
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]
    assert "geheim@" not in answer.text


def test_a_local_datastore_needs_an_absolute_path(plane: Plane) -> None:
    bodies = [{"properties": {"datastoreType": "Local", "path": path}} for path in ("x/y", "/x/y")]
    answers = [plane.http.put("/v1/datastores/here", json=body) for body in bodies]
    assert [answer.status_code for answer in answers] == [400, 201]
    assert "expected an absolute path" in answers[0].json()["error"]["message"]


def test_two_datastores_of_one_place_are_refused(plane: Plane) -> None:
    plane.put("/v1/datastores/lake", some()).raise_for_status()
    answer = plane.http.put("/v1/datastores/sea", json=some())
    assert (answer.status_code, "'lake' is s3://lake" in answer.text) == (409, True)
    plane.put("/v1/datastores/sea", some(prefix="sea")).raise_for_status()
    plane.put("/v1/datastores/lake", some()).raise_for_status()


@pytest.mark.parametrize("address", ["azureml", "data asset"])
def test_a_job_over_a_bucket_gives_a_row_for_each_object(
    ready: Plane, bucket: Bucket, address: str
) -> None:
    fill(bucket, 25)
    ready.put("/v1/datastores/lake", body_of(bucket)).raise_for_status()
    uri = f"{bucket.uri}/in"
    if address == "azureml":
        uri = "azureml://datastores/lake/paths/in"
    elif address == "data asset":
        properties = {"dataType": "uri_folder", "dataUri": uri}
        ready.put("/v1/data/d/versions/1", {"properties": properties}).raise_for_status()
        uri = "azureml:d:1"
    name = invoke(ready, uri).json()["name"]
    ready.turn()
    access = ready.workspace.access_file(name)
    assert access.stat().st_mode & 0o777 == 0o600
    job = ready.wait(name)
    assert job["status"] == "Completed", job
    assert not access.exists()
    rows = (ready.workspace.output_folder(name) / "predictions.csv").read_text().split()
    assert rows == [f"{number:03d}.txt" for number in range(25)]
    secret = bucket.access.places[0].secret_access_key
    assert secret not in json.dumps(job)
    for path in ready.workspace.datastores.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_what_is_not_there_is_refused_in_one_line(ready: Plane, bucket: Bucket) -> None:
    fill(bucket, 2)
    ready.put("/v1/datastores/lake", body_of(bucket)).raise_for_status()
    for uri, kind, status, code in (
        (f"{bucket.uri}/none", "UriFolder", 400, "InputMissing"),
        (f"{bucket.uri}/none", "UriFile", 400, "InputMissing"),
        (f"{bucket.uri}/in", "UriFile", 400, "InvalidInput"),
        (f"{bucket.uri}/in/000.txt", "UriFolder", 400, "InvalidInput"),
        ("azureml://datastores/lakes/paths/in", "UriFolder", 404, "NotFound"),
    ):
        answer = invoke(ready, uri, kind)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code), error
        assert "\n" not in error["message"]
    assert ready.ray.submitted == []


def test_wrong_credentials_are_named_and_not_shown(ready: Plane, bucket: Bucket) -> None:
    wrong = dataclasses.replace(bucket.access.places[0], secret_access_key=SECRET)
    other = Bucket(bucket.uri, dataclasses.replace(bucket.access, places=(wrong,)))
    ready.put("/v1/datastores/lake", body_of(other)).raise_for_status()
    answer = invoke(ready, f"{bucket.uri}/in")
    assert answer.status_code == 400
    assert "credentials" in answer.json()["error"]["message"]
    assert SECRET not in answer.text


def test_only_an_admin_uses_this_machines_own_credentials(ready: Plane) -> None:
    made = ready.http.post("/v1/tokens", json={"name": "s", "role": "scorer"}).json()
    body = {"properties": {"inputData": {"i": {"jobInputType": "UriFolder", "uri": "s3://any/x"}}}}
    answer = ready.client(made["token"]).post("/endpoints/digits/jobs", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "Forbidden")


def test_a_private_address_is_refused_before_a_job_is_made(ready: Plane) -> None:
    for uri in ("http://169.254.169.254/latest/meta-data/", "https://localhost/x", "http://[::1]/"):
        answer = invoke(ready, uri, "UriFile")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "AddressRefused")


def test_a_model_and_code_on_s3_are_copied_when_they_are_registered(
    plane: Plane, bucket: Bucket
) -> None:
    plane.put("/v1/datastores/lake", body_of(bucket)).raise_for_status()
    filesystem, name = open_filesystem(bucket.uri, bucket.access)
    filesystem.pipe({
        f"{name}/model/weights/a.bin": b"factor", f"{name}/src/score.py": (
            b"import os\n"
            b"def init():\n"
            b"    global text\n"
            b"    text = open(os.environ['AZUREML_MODEL_DIR'] + '/model/weights/a.bin').read()\n"
            b"def run(mini_batch):\n"
            b"    return [text for path in mini_batch]\n"
        ), f"{name}/in/1": b"",
    })
    model = {"properties": {"modelUri": "azureml://datastores/lake/paths/model"}}
    plane.put("/v1/models/m/versions/1", model).raise_for_status()
    deploy(
        plane, f"{bucket.uri}/src",   # type: ignore[arg-type]
        model={"referenceType": "Id", "assetId": "azureml:m:1"},
    )
    made = invoke(plane, f"{bucket.uri}/in").json()
    assert plane.wait(made["name"])["status"] == "Completed"
    rows = plane.workspace.output_folder(made["name"]) / "predictions.csv"
    assert rows.read_text() == "factor\n"
    gone = {"properties": {"modelUri": f"{bucket.uri}/nothing"}}
    plane.put("/v1/models/gone/versions/1", gone).raise_for_status()
    state = plane.http.get("/v1/models/gone/versions/1").json()["properties"]
    assert state["provisioningState"] == "Failed", state


def test_an_output_on_s3_is_written_there_and_read_through_the_api(
    ready: Plane, bucket: Bucket
) -> None:
    fill(bucket, 6)
    ready.put("/v1/datastores/lake", body_of(bucket)).raise_for_status()
    output = {"score": {
        "jobOutputType": "UriFolder", "uri": "azureml://datastores/lake/paths/out",
    }}
    name = invoke(ready, f"{bucket.uri}/in", outputData=output).json()["name"]
    job = ready.wait(name)
    assert job["status"] == "Completed", job
    rows = "".join(f"{number:03d}.txt\n" for number in range(6)).encode()
    assert bucket.objects("out")["out/predictions.csv"] == rows
    files = ready.http.get(f"/v1/jobs/{name}/outputs/score/files").json()["value"]
    assert [file["name"] for file in files] == ["_SUCCESS.json", "predictions.csv"]
    address = f"/v1/jobs/{name}/outputs/score/files/predictions.csv"
    assert ready.http.get(address).content == rows
    again = invoke(ready, f"{bucket.uri}/in", outputData=output)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "OutputExists")
    inside = {"score": {"jobOutputType": "UriFolder", "uri": f"{bucket.uri}/in/out"}}
    refused = invoke(ready, f"{bucket.uri}/in", outputData=inside)
    assert "lies in the input" in refused.json()["error"]["message"]


def test_the_signature_of_an_input_is_shown_to_nobody(
    ready: Plane, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERAY_ALLOW_PRIVATE_ADDRESSES", "true")
    site.files["/x.csv"] = b"1\n"
    uri = f"{site.url}/x.csv?sig={SECRET}"
    name = invoke(ready, uri, "UriFile", name="signed").json()["name"]
    job = ready.wait(name)
    assert job["status"] == "Completed", job
    assert job["inputs"]["input"]["uri"] == f"{site.url}/x.csv?…"
    again = [invoke(ready, uri + more, "UriFile", name="signed") for more in ("", "x")]
    assert [answer.status_code for answer in again] == [200, 409]   # what was asked is still known
    assert SECRET not in json.dumps(job) + ready.http.get("/v1/jobs").text
    folder = ready.workspace.job_folder(name)
    shown = [*ready.workspace.output_folder(name).rglob("*"), *(folder / "logs").rglob("*"),
             *(folder / "work" / "journal").rglob("*")]
    assert len([path for path in shown if path.is_file()]) > 3
    for path in shown:
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
