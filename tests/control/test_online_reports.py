from __future__ import annotations

from typing import Any

import pytest

from inferay.control import online_reports
from inferay.serve.mirror.bodies import body_of
from inferay.serve.mirror.pairs import Answered, PairLog
from tests.control.conftest import Plane
from tests.serve.mirror.shadows import exchange

REPORT = "/v1/onlineEndpoints/digits/shadowReport"


@pytest.fixture
def online(plane: Plane, make_code: Any) -> Plane:
    """An endpoint with blue, and green that gets copies; the edge is away, rows are enough."""
    code = {"properties": {"codeUri": str(make_code())}}
    plane.put("/v1/codes/digits/versions/1", code).raise_for_status()
    address = "/v1/onlineEndpoints/digits"
    plane.put(address, {"properties": {"authMode": "Key"}}).raise_for_status()
    for name in ("blue", "green"):
        plane.put(f"{address}/deployments/{name}", {"properties": {
            "codeConfiguration": {"codeId": "azureml:digits:1", "scoringScript": "score.py"},
        }, "sku": {"name": "Default", "capacity": 1}}).raise_for_status()
    return plane


def write_pairs(plane: Plane) -> None:
    log = PairLog(plane.workspace.pairs_folder("digits"), "blue", "r1", "replica")
    for number, body in enumerate([b"[1.0]", b"[1.0]", b"[1.01]", b"[2.0]"]):
        answer = Answered(200, 0.02, 0.01, "application/json", body_of(body, 100), "r2")
        log.append(exchange(f"id-{number}", answer_body=b"[1.0]"), "green", answer)
    log.close()


def test_a_report_is_what_the_pairs_of_the_endpoint_show(online: Plane) -> None:
    write_pairs(online)
    found = online.http.get(REPORT, params={"live": "blue", "shadow": "green"}).json()
    assert (found["pairs"], found["reason"], found["agreement"]["rate"]) == (4, None, 0.5)
    assert [one["requestId"] for one in found["worst"]] == ["id-3", "id-2"]
    found = online.http.get(REPORT, params={
        "live": "blue", "shadow": "green", "relativeTolerance": 0.02, "worst": 0,
    }).json()
    assert (found["agreement"]["rate"], found["worst"]) == (0.75, [])


def test_a_report_without_pairs_says_why(online: Plane) -> None:
    found = online.http.get(REPORT, params={"live": "blue", "shadow": "green"}).json()
    assert found["pairs"] == 0
    assert found["reason"].startswith("no mirror traffic to 'green' is set")


@pytest.mark.parametrize(("params", "status", "said"), [
    ({"live": "blue", "shadow": "grren"}, 404, "did you mean 'green'?"),
    ({"live": "red", "shadow": "green"}, 404, "no deployment 'red'"),
    ({"live": "blue", "shadow": "blue"}, 400, "both 'blue'"),
    ({"live": "../blue", "shadow": "green"}, 404, "no deployment"),
    ({"live": "blue"}, 400, "shadow"),
    ({"live": "blue", "shadow": "green", "worst": 101}, 400, "worst"),
    ({"live": "blue", "shadow": "green", "relativeTolerance": "nan"}, 400, "relativeTolerance"),
])
def test_what_cannot_be_reported_is_refused(
    online: Plane, params: dict[str, Any], status: int, said: str
) -> None:
    answer = online.http.get(REPORT, params=params)
    assert (answer.status_code, said in answer.text) == (status, True), answer.text


def test_there_is_no_report_of_an_endpoint_that_is_not_there(plane: Plane) -> None:
    answer = plane.http.get(REPORT, params={"live": "blue", "shadow": "green"})
    assert answer.status_code == 404
    assert "no online endpoint 'digits'" in answer.text


def test_whoever_may_only_score_sees_no_report(online: Plane) -> None:
    body = {"name": "s", "role": "scorer"}
    token = online.http.post("/v1/tokens", json=body).json()["token"]
    answer = online.client(token).get(REPORT, params={"live": "blue", "shadow": "green"})
    assert answer.status_code in (401, 403)


def test_reports_are_made_one_after_the_other(
    online: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online_reports, "WAIT_S", 0.05)
    params = {"live": "blue", "shadow": "green"}
    with online.context.reporting:
        assert online.http.get(REPORT, params=params).status_code == 503
    assert online.http.get(REPORT, params=params).status_code == 200
