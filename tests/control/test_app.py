from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.control.conftest import Plane, deploy, invocation

#: What each route takes. A new route without an entry fails the test below.
POLICY: dict[tuple[str, str], str] = {
    ("GET", "/openapi.json"): "any",
    ("GET", "/v1/status"): "reader",
    ("GET", "/v1/operations/{key}"): "reader",
    ("GET", "/v1/tokens"): "admin",
    ("POST", "/v1/tokens"): "admin",
    ("DELETE", "/v1/tokens/{name}"): "admin",
    ("GET", "/v1/batchEndpoints"): "reader",
    ("GET", "/v1/batchEndpoints/{name}"): "reader",
    ("PUT", "/v1/batchEndpoints/{name}"): "admin",
    ("DELETE", "/v1/batchEndpoints/{name}"): "admin",
    ("GET", "/v1/batchEndpoints/{endpoint}/deployments"): "reader",
    ("GET", "/v1/batchEndpoints/{endpoint}/deployments/{name}"): "reader",
    ("PUT", "/v1/batchEndpoints/{endpoint}/deployments/{name}"): "admin",
    ("DELETE", "/v1/batchEndpoints/{endpoint}/deployments/{name}"): "admin",
    ("GET", "/v1/batchEndpoints/{endpoint}/jobs"): "jobs",
    ("GET", "/v1/batchEndpoints/{endpoint}/deployments/{deployment}/jobs"): "jobs",
    ("GET", "/v1/onlineEndpoints"): "reader",
    ("GET", "/v1/onlineEndpoints/{name}"): "jobs",
    ("PUT", "/v1/onlineEndpoints/{name}"): "admin",
    ("DELETE", "/v1/onlineEndpoints/{name}"): "admin",
    ("POST", "/v1/onlineEndpoints/{name}/listKeys"): "admin",
    ("POST", "/v1/onlineEndpoints/{name}/regenerateKeys"): "admin",
    ("POST", "/v1/onlineEndpoints/{name}/token"): "scorer",
    ("GET", "/v1/onlineEndpoints/{name}/shadowReport"): "reader",
    ("GET", "/v1/onlineEndpoints/{endpoint}/deployments"): "reader",
    ("GET", "/v1/onlineEndpoints/{endpoint}/deployments/{name}"): "reader",
    ("PUT", "/v1/onlineEndpoints/{endpoint}/deployments/{name}"): "admin",
    ("DELETE", "/v1/onlineEndpoints/{endpoint}/deployments/{name}"): "admin",
    ("POST", "/v1/onlineEndpoints/{endpoint}/deployments/{name}/getLogs"): "reader",
    ("GET", "/v1/computes"): "reader",
    ("GET", "/v1/computes/{name}"): "reader",
    ("PUT", "/v1/computes/{name}"): "admin",
    ("DELETE", "/v1/computes/{name}"): "admin",
    ("GET", "/v1/datastores"): "reader",
    ("GET", "/v1/datastores/{name}"): "reader",
    ("PUT", "/v1/datastores/{name}"): "admin",
    ("DELETE", "/v1/datastores/{name}"): "admin",
    ("GET", "/v1/datastores/{name}/uploads/{digest}"): "admin",
    ("PUT", "/v1/datastores/{name}/uploads/{digest}/{path:path}"): "admin",
    ("POST", "/endpoints/{endpoint}/jobs"): "scorer",
    ("GET", "/v1/jobs"): "reader",
    ("GET", "/v1/jobs/{name}"): "jobs",
    ("POST", "/v1/jobs/{name}/cancel"): "admin",
    ("POST", "/v1/jobs/{name}/resume"): "admin",
    ("POST", "/v1/jobs/{name}/redrive"): "admin",
    ("GET", "/v1/jobs/{name}/verify"): "jobs",
    ("GET", "/v1/jobs/{name}/errors"): "jobs",
    ("GET", "/v1/jobs/{name}/logs"): "jobs",
    ("GET", "/v1/jobs/{name}/logs/{path:path}"): "jobs",
    ("GET", "/v1/jobs/{name}/outputs/score/files"): "jobs",
    ("GET", "/v1/jobs/{name}/outputs/score/files/{path:path}"): "jobs",
    ("POST", "/v1/uploads"): "upload",
    ("PUT", "/v1/uploads/{key}/{path:path}"): "upload",
    ("DELETE", "/v1/uploads/{key}"): "admin",
    ("GET", "/v1/{kind}"): "reader",
    ("GET", "/v1/{kind}/{name}"): "reader",
    ("GET", "/v1/{kind}/{name}/versions"): "reader",
    ("GET", "/v1/{kind}/{name}/versions/{version}"): "reader",
    ("GET", "/v1/{kind}/{name}/labels/{label}"): "reader",
    ("GET", "/v1/models/{name}/versions/{version}/files"): "reader",
    ("GET", "/v1/models/{name}/versions/{version}/files/{path:path}"): "reader",
    ("PUT", "/v1/{kind}/{name}/versions/{version}"): "admin",
    ("POST", "/v1/{kind}/{name}/versions"): "admin",
    ("DELETE", "/v1/{kind}/{name}/versions/{version}"): "admin",
    ("POST", "/v1/{kind}/{name}/archive"): "admin",
    ("POST", "/v1/{kind}/{name}/restore"): "admin",
    ("POST", "/v1/{kind}/{name}/versions/{version}/archive"): "admin",
    ("POST", "/v1/{kind}/{name}/versions/{version}/restore"): "admin",
    ("POST", "/v1/environments/{name}/versions/{version}/build"): "admin",
}

#: Who gets past which rule, on endpoint `digits`.
REACHES = {
    "any": {"reader", "scorer", "stranger"},
    "reader": {"reader"},
    "admin": set(),
    "jobs": {"reader", "scorer"},
    "scorer": {"scorer"},
    "upload": {"scorer", "stranger"},
}


def test_every_route_has_a_rule_about_who_may_call_it(plane: Plane) -> None:
    schema = plane.http.get("/openapi.json").json()["paths"]
    found = {(method.upper(), path) for path, item in schema.items() for method in item}
    declared = {
        (method, path.replace(":path", "")) for method, path in POLICY if path != "/openapi.json"
    }
    assert found == declared


@pytest.fixture
def tokens(plane: Plane, make_code: Callable[..., Path], data: Path) -> dict[str, str]:
    deploy(plane, make_code())
    deploy(plane, make_code(), endpoint="other")
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j"))
    plane.wait("j")
    bodies = {
        "reader": {"name": "r", "role": "reader"},
        "scorer": {"name": "s", "role": "scorer", "endpoint": "digits"},
        "stranger": {"name": "t", "role": "scorer", "endpoint": "other"},
    }
    return {
        who: plane.http.post("/v1/tokens", json=body).json()["token"]
        for who, body in bodies.items()
    }


def test_each_role_reaches_exactly_what_the_rules_say(
    plane: Plane, tokens: dict[str, str]
) -> None:
    clients = {who: plane.client(token) for who, token in tokens.items()}
    for (method, path), rule in POLICY.items():
        address = path.replace("{endpoint}", "digits").replace("{kind}", "models")
        address = address.replace("{path:path}", "x").replace("{deployment}", "blue")
        if "/jobs/" in address:
            address = address.replace("{name}", "j")
        address = address.replace("{name}", "digits").replace("{version}", "1")
        address = address.replace("{label}", "latest").replace("{digest}", "0" * 64)
        address = address.replace("{key}", "00000000-0000-0000-0000-000000000000")
        for who, client in clients.items():
            answer = client.request(method, address, json={})
            was_refused = answer.status_code == 403
            assert was_refused == (who not in REACHES[rule]), f"{who}: {method} {address}"


@pytest.mark.parametrize("token", [None, "", "wrong", "a" * 10_000])
def test_without_a_valid_token_every_route_answers_the_same_401(
    plane: Plane, token: str | None
) -> None:
    bodies, client = set(), plane.client(token)
    for method, path in POLICY:
        answer = client.request(method, path.replace("{kind}", "models"), json={})
        assert answer.status_code == 401, f"{method} {path}"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        bodies.add(answer.text)
    assert len(bodies) == 1


def test_an_expired_or_deleted_token_is_refused(plane: Plane) -> None:
    for name, days in (("old", -1), ("gone", 1)):
        body = {"name": name, "role": "reader", "days": days}
        token = plane.http.post("/v1/tokens", json=body).json()["token"]
        if name == "gone":
            assert plane.client(token).get("/v1/jobs").status_code == 200
            plane.http.delete("/v1/tokens/gone")
        assert plane.client(token).get("/v1/jobs").status_code == 401


def test_a_secret_is_kept_nowhere(plane: Plane) -> None:
    token = plane.http.post("/v1/tokens", json={"name": "n", "role": "reader"}).json()["token"]
    assert "token" not in plane.http.get("/v1/tokens").json()["value"][-1]
    plane.database.close()
    for path in plane.workspace.home.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("PUT", "/v1/batchEndpoints/x!", {"properties": {}}, 400, "letters"),
        ("PUT", "/v1/batchEndpoints/e", {"properties": {}}, 400, "3 to 32"),
        ("PUT", "/v1/batchEndpoints/abc", {"propertys": {}}, 400, "did you mean 'properties'"),
        ("PUT", "/v1/batchEndpoints/abc", {"properties": {"authMode": 7}}, 400, "authMode"),
        ("PUT", "/v1/batchEndpoints/abc/deployments/d", {"properties": {}}, 404, "abc"),
        ("PUT", "/v1/batchEndpoints/abc", [1], 400, "JSON object"),
        ("POST", "/endpoints/ghost/jobs", {"properties": {}}, 404, "ghost"),
        ("GET", "/v1/jobs/ghost", None, 404, "ghost"),
        ("GET", "/v1/ghosts", None, 404, "no such route"),
        ("GET", "/nothing", None, 404, "/nothing"),
        ("PATCH", "/v1/jobs", None, 405, "/v1/jobs"),
        ("POST", "/v1/tokens", {"name": "x", "role": "king"}, 400, "king"),
        ("GET", "/v1/jobs?top=0", None, 400, "top"),
        ("PUT", "/v1/models/m/versions/1", {"properties": {"modelUri": "/no/where"}}, 400, "/no"),
        ("PUT", "/v1/models/m/versions/1", {"properties": {"modelUri": "ftp://x/y"}}, 400, "ftp"),
        ("PUT", "/v1/datastores/workspaceblobstore",
         {"properties": {"datastoreType": "Local", "path": "/tmp"}}, 409, "own"),
    ],
)
def test_a_bad_request_is_answered_in_azures_shape_and_in_one_line(
    plane: Plane, method: str, path: str, body: Any, status: int, said: str
) -> None:
    answer = plane.http.request(method, path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, set(error)) == (status, {"code", "message", "target", "details"})
    assert said in error["message"]
    assert "\n" not in error["message"]
    assert "Traceback" not in answer.text


HALF = "\ud800"   # of a UTF-16 pair: JSON can write it, UTF-8 cannot


@pytest.mark.parametrize("properties", [
    {"tags": {"a": HALF}}, {"tags": {HALF: "a"}}, {"description": HALF}, {HALF: "x"},
    {"resources": {"properties": {"a": [HALF]}}}, {"resources": {"properties": {HALF: 1}}},
    {"inputData": {HALF: {"jobInputType": "UriFolder", "uri": "/"}}}, {"name": HALF},
    {"inputData": {"input": {"jobInputType": "UriFolder", "uri": f"/{HALF}"}}},
])
def test_text_that_no_answer_could_hold_is_refused(
    plane: Plane, make_code: Callable[..., Path], data: Path, properties: dict[str, Any]
) -> None:
    deploy(plane, make_code())
    whole = invocation(data)["properties"] | properties
    body = json.dumps({"properties": whole})   # ASCII, with escapes
    answer = plane.http.post("/endpoints/digits/jobs", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidInput")
    assert plane.http.get("/v1/jobs").json()["value"] == []


def test_an_error_about_text_that_does_not_encode_is_an_answer(plane: Plane) -> None:
    body = json.dumps({"name": "x", "role": HALF})
    answer = plane.http.post("/v1/tokens", content=body)
    assert (answer.status_code, HALF in answer.json()["error"]["message"]) == (400, True)


def test_a_body_that_is_no_json_or_too_large_is_refused(plane: Plane) -> None:
    for body in (b"{", b"[" * 100_000, b'{"a": "' + b"x" * (5 << 20) + b'"}', b"\xff"):
        answer = plane.http.put("/v1/batchEndpoints/abc", content=body)
        assert answer.status_code == 400
    assert plane.http.get("/v1/batchEndpoints").json()["value"] == []


def test_a_log_or_output_is_served_from_its_own_folder_only(
    plane: Plane, tokens: dict[str, str]
) -> None:
    secret = plane.workspace.admin_token
    output = Path(plane.job("j")["outputs"]["score"]["path"])
    (output / "link").symlink_to(secret)
    for path in (
        "../../../../../secrets/admin_token", "%2e%2e/%2e%2e/x", "link", f"/{secret}", "a%00b",
    ):
        for kind in ("logs", "outputs/score/files"):
            answer = plane.http.get(f"/v1/jobs/j/{kind}/{path}")
            assert answer.status_code == 404, path
            assert secret.read_text() not in answer.text
    rows = plane.http.get("/v1/jobs/j/outputs/score/files/predictions.csv").text
    assert rows.startswith("00.txt")


def test_an_upload_stays_in_its_folder(plane: Plane, tmp_path: Path) -> None:
    key = plane.http.post("/v1/uploads").json()["name"]
    assert plane.http.put(f"/v1/uploads/{key}/a/b.txt", content=b"1").status_code == 204
    for path in ("../x", "a/../../x", "%2e%2e/x"):
        answer = plane.http.put(f"/v1/uploads/{key}/{path}", content=b"1")
        assert answer.status_code in (400, 404, 405), path
    folder = plane.workspace.datastores / "workspaceblobstore" / "LocalUpload"
    files = [str(p.relative_to(folder / key)) for p in folder.rglob("*") if p.is_file()]
    assert files == ["a/b.txt"]


def test_a_scorer_may_only_name_paths_in_a_datastore(
    plane: Plane, tokens: dict[str, str], data: Path
) -> None:
    scorer = plane.client(tokens["scorer"])
    refused = scorer.post("/endpoints/digits/jobs", json=invocation(data))
    assert refused.status_code == 403
    uploaded = scorer.post("/v1/uploads").json()
    scorer.put(f"/v1/uploads/{uploaded['name']}/d/1.txt", content=b"1")
    body = invocation(data)
    body["properties"]["inputData"]["input"]["uri"] = f"{uploaded['uri']}/d"
    accepted = scorer.post("/endpoints/digits/jobs", json=body)
    assert accepted.status_code == 201
    assert plane.wait(accepted.json()["name"])["status"] == "Completed"
    link = plane.workspace.datastores / "workspaceblobstore" / "link"
    link.symlink_to(data)
    body["properties"]["inputData"]["input"]["uri"] = (
        "azureml://datastores/workspaceblobstore/paths/link"
    )
    assert scorer.post("/endpoints/digits/jobs", json=body).status_code == 403
