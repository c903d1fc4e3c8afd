from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.control.conftest import Plane, deploy, invocation

ID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def ready(plane: Plane, make_code: Callable[..., Path]) -> Iterator[Plane]:
    """An endpoint with two deployments, `blue` being the default; its jobs are awaited."""
    code = make_code()
    deploy(plane, code, name="green")
    deploy(plane, code)
    yield plane
    for job in plane.http.get("/v1/jobs").json()["value"]:
        plane.wait(job["name"])


def invoke(plane: Plane, body: dict[str, Any], **headers: str) -> httpx.Response:
    answer: httpx.Response = plane.http.post("/endpoints/digits/jobs", json=body, headers=headers)
    return answer


def identified(plane: Plane, body: dict[str, Any], request_id: str = ID) -> httpx.Response:
    return invoke(plane, body, **{"repeatability_request-id": request_id})


@pytest.mark.parametrize("default", ["green", None])
def test_a_repeat_is_the_same_job_whatever_the_default_deployment_is_by_then(
    ready: Plane, data: Path, default: str | None
) -> None:
    body = invocation(data, name="j")
    assert invoke(ready, body).status_code == 201
    ready.put(
        "/v1/batchEndpoints/digits", {"properties": {"defaults": {"deploymentName": default}}}
    ).raise_for_status()
    again = invoke(ready, body)
    assert (again.status_code, again.json()["name"]) == (200, "j")
    assert again.json()["properties"]["deploymentName"] == "blue"


@pytest.mark.parametrize("more", [
    {"description": None}, {"tags": {}}, {"MiniBatchSize": None}, {"outputData": {}},
])
def test_what_says_no_more_than_its_absence_makes_no_other_content(
    ready: Plane, data: Path, more: dict[str, Any]
) -> None:
    assert invoke(ready, invocation(data, name="j")).status_code == 201
    assert invoke(ready, invocation(data, name="j", **more)).status_code == 200


@pytest.mark.parametrize("more", [
    {"miniBatchSize": 3}, {"description": "x"}, {"tags": {"a": "b"}},
    {"retrySettings": {"maxRetries": 1}},
])
def test_other_content_under_the_same_name_is_refused(
    ready: Plane, data: Path, more: dict[str, Any]
) -> None:
    body = invocation(data, name="j")
    invoke(ready, body).raise_for_status()
    for other, headers in (
        (invocation(data, name="j", **more), {}), (body, {"azureml-model-deployment": "green"}),
    ):
        answer = invoke(ready, other, **headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "JobExists")


def test_a_request_id_beside_a_name_stands_for_one_request(ready: Plane, data: Path) -> None:
    answers = [identified(ready, invocation(data, name="a")) for _ in range(2)]
    assert [(one.status_code, one.json()["name"]) for one in answers] == [(201, "a"), (200, "a")]
    other = identified(ready, invocation(data, name="b"))
    assert (other.status_code, other.json()["error"]["code"]) == (409, "JobExists")
    assert ID in other.json()["error"]["message"]
    assert ready.http.get("/v1/jobs/b").status_code == 404
    # A client that gives each attempt an id of its own repeats by the name.
    another = identified(ready, invocation(data, name="a"), ID.replace("1", "6"))
    assert (another.status_code, another.json()["name"]) == (200, "a")
