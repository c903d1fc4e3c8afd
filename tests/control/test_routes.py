from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests.control.conftest import Plane, deploy, invocation


def resolve(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step.replace("~1", "/").replace("~0", "~")]
    return found


def test_the_openapi_document_resolves_and_describes_the_bodies(plane: Plane) -> None:
    for _ in range(2):   # it is made once and kept
        document = plane.http.get("/openapi.json").json()
        assert document["openapi"].startswith("3.1")
    references = set(re.findall(r'"\$ref":\s*"([^"]+)"', plane.http.get("/openapi.json").text))
    assert len(references) > 10
    for reference in references:
        assert isinstance(resolve(document, reference), dict), reference
    assert "$defs" not in plane.http.get("/openapi.json").text
    bodies = [
        content["schema"] for item in document["paths"].values() for operation in item.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
    ]
    for schema in [*bodies, *document["components"]["schemas"].values()]:
        Draft202012Validator.check_schema(schema)
    invoked = document["paths"]["/endpoints/{endpoint}/jobs"]["post"]["requestBody"]
    schema = invoked["content"]["application/json"]["schema"]
    properties = resolve(document, schema["properties"]["properties"]["$ref"])
    assert "miniBatchSize" in properties["properties"]


@pytest.fixture
def done(plane: Plane, make_code: Callable[..., Path], data: Path, tmp_path: Path) -> Plane:
    """A job whose output lies in a folder that holds other files."""
    deploy(plane, make_code())
    (tmp_path / "home-of-admin" / ".ssh").mkdir(parents=True)
    (tmp_path / "home-of-admin" / ".ssh" / "id_rsa").write_text("secret")
    (tmp_path / "home-of-admin" / "notes").write_text("secret")
    output = {"score": {"jobOutputType": "UriFolder", "uri": str(tmp_path / "home-of-admin")}}
    body = invocation(data, name="j", outputData=output)
    plane.http.post("/endpoints/digits/jobs", json=body).raise_for_status()
    assert plane.wait("j")["status"] == "Completed"
    return plane


def test_only_what_the_job_published_is_served_of_its_output_folder(done: Plane) -> None:
    body = {"name": "r", "role": "reader"}
    reader = done.client(done.http.post("/v1/tokens", json=body).json()["token"])
    address = "/v1/jobs/j/outputs/score/files"
    names = [file["name"] for file in reader.get(address).json()["value"]]
    assert names == ["_SUCCESS.json", "predictions.csv"]
    for name in names:
        assert reader.get(f"{address}/{name}").status_code == 200
    for name in ("notes", ".ssh/id_rsa", "./notes", ".ssh/../notes"):
        answer = reader.get(f"{address}/{name}")
        assert (answer.status_code, "secret" in answer.text) == (404, False)


def test_links_and_vanished_files_do_not_break_a_listing(done: Plane) -> None:
    logs = done.workspace.job_folder("j") / "logs"
    logs.mkdir(exist_ok=True)
    (logs / "dangling").symlink_to("nothing")
    (logs / "out").symlink_to(done.workspace.admin_token)
    (logs / "real.txt").write_text("x")
    found = done.http.get("/v1/jobs/j/logs")
    assert found.status_code == 200
    names = [file["name"] for file in found.json()["value"]]
    assert "real.txt" in names
    assert not {"dangling", "out"} & set(names)


def test_a_name_that_no_file_system_takes_is_not_found(done: Plane) -> None:
    for kind in ("logs", "outputs/score/files"):
        assert done.http.get(f"/v1/jobs/j/{kind}/{'x' * 300}").status_code == 404


@pytest.mark.parametrize(("first", "second"), [
    ("a", "a/b"), ("a/b", "a"), ("x", "y" * 300), ("x", "a/" + "é" * 200),
])
def test_an_upload_of_a_file_that_cannot_be_is_refused(
    plane: Plane, first: str, second: str
) -> None:
    key = plane.http.post("/v1/uploads").json()["name"]
    assert plane.http.put(f"/v1/uploads/{key}/{first}", content=b"1").status_code == 204
    answer = plane.http.put(f"/v1/uploads/{key}/{second}", content=b"2")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidInput")
    root = plane.workspace.datastores / "workspaceblobstore" / "LocalUpload" / key
    assert [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()] == [first]


def test_a_long_name_in_any_script_can_be_uploaded(plane: Plane) -> None:
    key = plane.http.post("/v1/uploads").json()["name"]
    for name in ("é" * 127, "数" * 85, "x" * 255):
        assert plane.http.put(f"/v1/uploads/{key}/{name}", content=b"1").status_code == 204


@pytest.mark.parametrize("body", [
    {"name": ""}, {"name": "a/b"}, {"name": ".."}, {"name": "x" * 300}, {"name": "a", "days": 1e18},
    {"name": "a", "days": -1e300}, {"name": 7}, {"name": "a", "role": "king"},
    {"name": "a", "endpoint": "digits"}, {"name": "a", "more": 1},
])
def test_a_token_with_a_wrong_name_or_time_is_refused(plane: Plane, body: dict[str, Any]) -> None:
    answer = plane.http.post("/v1/tokens", json={"role": "reader"} | body)
    assert answer.status_code == 400
    assert len(plane.http.get("/v1/tokens").json()["value"]) == 1


@pytest.mark.parametrize("days", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(plane: Plane, days: str) -> None:
    body = f'{{"name": "a", "role": "reader", "days": {days}}}'
    assert plane.http.post("/v1/tokens", content=body.encode()).status_code == 400


def test_a_deletion_is_answered_without_a_body_once_it_is_done(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.put("/v1/batchEndpoints/digits", {"properties": {}})
    pending = plane.http.delete("/v1/batchEndpoints/digits")
    assert (pending.status_code, pending.json()["status"]) == (202, "InProgress")
    plane.turn()
    plane.put("/v1/batchEndpoints/digits", {"properties": {}})
    monkeypatch.setattr(
        "inferay.control.routes.endpoints.settle", lambda context, operation: _succeeded(operation)
    )
    done = plane.http.delete("/v1/batchEndpoints/digits")
    assert (done.status_code, done.content) == (204, b"")


def _succeeded(operation: Any) -> Any:
    operation.status = "Succeeded"
    return operation
