"""The edge's rules over real HTTP: who may, which deployment, what a client sees."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import httpx
import pytest

from inferay.config import Workspace
from inferay.edge_process import end_edge
from inferay.errors import InvalidInput
from inferay.serve.routing import DeploymentRoute, EndpointRoute, RoutingTable
from tests.edges import RunningEdge, started, wait_until
from tests.http_site import Site
from tests.serve.edge.conftest import KEY, Stage, endpoint


def test_a_request_with_a_key_reaches_the_deployment_with_traffic(
    stage: Stage, auth: dict[str, str]
) -> None:
    blue = stage.add("b1", "e", "blue")
    stage.publish(endpoint())
    stage.edge.wait_up("b1")
    with stage.edge.http() as http:
        answer = http.post("/endpoints/e/score", headers=auth, content=b"[1]")
    assert answer.status_code == 200
    assert answer.json() == {"by": "b1", "path": "/score", "bytes": 3}
    assert answer.headers["azureml-model-deployment"] == "blue"
    assert answer.headers["x-request-id"]
    assert "authorization" not in blue.seen[0]["headers"]


def test_the_host_name_names_the_endpoint_too(stage: Stage, auth: dict[str, str]) -> None:
    stage.add("b1", "e", "blue")
    stage.publish(endpoint())
    stage.edge.wait_up("b1")
    with stage.edge.http() as http:
        answer = http.post("/score", headers={**auth, "host": "e.example.com"}, content=b"")
    assert answer.json()["path"] == "/score"


@pytest.mark.parametrize("path", ["/swagger.json", "/"])
def test_the_other_routes_of_a_container_are_reached_with_the_key(
    stage: Stage, auth: dict[str, str], path: str
) -> None:
    stage.add("b1", "e", "blue")
    stage.publish(endpoint())
    stage.edge.wait_up("b1")
    with stage.edge.http() as http:
        assert http.get(f"/endpoints/e{path}", headers=auth).json()["path"] == path
        assert http.get(f"/endpoints/e{path}").status_code == 401


def test_a_key_of_another_endpoint_is_answered_exactly_as_none(stage: Stage) -> None:
    stage.add("b1", "e", "blue")
    stage.publish(endpoint(), endpoint("f", "another-key"))
    stage.edge.wait_up("b1")
    told = []
    with stage.edge.http() as http:
        for given in (None, "Bearer another-key", "Bearer nonsense", f"Basic {KEY}", "Bearer",
                      f"Bearer {KEY}x", "Bearer a.b.c"):
            headers = {"x-request-id": "me"} | ({"authorization": given} if given else {})
            answer = http.post("/endpoints/e/score", headers=headers, content=b"")
            told.append((answer.status_code, sorted(answer.headers.items()), answer.content))
    assert told[0][0] == 401
    assert all(one == told[0] for one in told)
    assert json.loads(told[0][2])["error"]["code"] == "Unauthenticated"


def test_a_new_key_opens_and_the_old_one_does_not(stage: Stage, auth: dict[str, str]) -> None:
    stage.add("b1", "e", "blue")
    stage.publish(endpoint())
    stage.edge.wait_up("b1")
    stage.publish(endpoint(key="new"))
    with stage.edge.http() as http:
        assert http.post("/endpoints/e/score", headers=auth).status_code == 401
        new = {"authorization": "Bearer new"}
        assert http.post("/endpoints/e/score", headers=new).status_code == 200


def test_an_unknown_endpoint_is_not_found(stage: Stage, auth: dict[str, str]) -> None:
    with stage.edge.http() as http:
        answer = http.post("/endpoints/nobody/score", headers=auth)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "there is no such online endpoint"


def test_what_is_no_route_of_a_container_is_the_control_planes(site: Site, tmp_path: Path) -> None:
    theirs = ("/endpoints/e/jobs", "/endpoints/e/score/x", "/v1/batchEndpoints/e")
    site.files.update({path: path.encode() for path in theirs})
    port = int(site.url.rpartition(":")[2])
    with started(tmp_path, control_port=port) as edge, edge.http() as http:
        assert [http.get(path).text for path in theirs] == list(theirs)
        assert "no such online endpoint" in http.get("/endpoints/e/score").text


def test_a_secret_may_begin_as_an_option_of_haproxy_does(tmp_path: Path) -> None:
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "state.json").write_text(json.dumps({
        "secret": "-f", "table": RoutingTable().to_dict(), "replicas": [], "failures": [],
        "slots": [], "shape": [1, 1],
    }))
    with started(tmp_path) as edge, edge.http() as http:
        assert http.get("/endpoints/e/score").status_code == 404


@pytest.mark.parametrize("content", ["", '{"table": '])
def test_a_damaged_state_is_begun_anew(tmp_path: Path, content: str) -> None:
    workspace = Workspace(tmp_path)
    workspace.edge.mkdir()
    (workspace.edge / "state.json").write_text(content)
    assert not end_edge(workspace)   # nor does it keep `down` from its work
    (workspace.edge / "state.json").write_text(content)
    with started(tmp_path) as edge, edge.http() as http:
        assert http.get("/endpoints/e/score").status_code == 404
        assert "state.json is damaged" in edge.log()


def test_traffic_is_split_by_its_weights(stage: Stage, auth: dict[str, str]) -> None:
    stage.add("b1", "e", "blue")
    stage.add("g1", "e", "green")
    stage.publish(endpoint(
        traffic={"blue": 90, "green": 10}, deployments={"blue": "1", "green": "1"}
    ))
    stage.edge.wait_up("b1", "g1")
    with stage.edge.http() as http:
        count = Counter(
            http.post("/endpoints/e/score", headers=auth).json()["by"] for _ in range(500)
        )
    assert count.total() == 500
    assert 25 <= count["g1"] <= 75   # 50 expected; 3.7 standard deviations to either side


def test_the_header_names_a_deployment_without_traffic(
    stage: Stage, auth: dict[str, str]
) -> None:
    stage.add("b1", "e", "blue")
    green = stage.add("g1", "e", "green")
    stage.publish(endpoint(deployments={"blue": "1", "green": "1"}))
    stage.edge.wait_up("b1", "g1")
    with stage.edge.http() as http:
        named = http.post("/endpoints/e/score", headers={
            **auth, "azureml-model-deployment": "green",
        })
        unknown = http.post("/endpoints/e/score", headers={
            **auth, "azureml-model-deployment": "greem",
        })
    assert named.json()["by"] == "g1"
    assert "azureml-model-deployment" not in green.seen[0]["headers"]
    assert unknown.status_code == 404


def test_an_endpoint_without_traffic_answers_404(stage: Stage, auth: dict[str, str]) -> None:
    stage.add("b1", "e", "blue")
    stage.publish(endpoint(traffic={}))
    with stage.edge.http() as http:
        answer = http.post("/endpoints/e/score", headers=auth)
    assert answer.status_code == 404
    assert "no deployment of this endpoint takes traffic" in answer.json()["error"]["message"]


def test_a_deployment_without_a_replica_answers_503_and_when_to_try_again(
    stage: Stage, auth: dict[str, str]
) -> None:
    stage.publish(endpoint(deployments={"blue": "not-up"}))
    with stage.edge.http() as http:
        answer = http.post("/endpoints/e/score", headers=auth)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "Unavailable"


@pytest.mark.parametrize("status", [500, 400, 404, 201, 503])
def test_what_a_container_answers_besides_200_is_424_for_the_client(
    stage: Stage, auth: dict[str, str], status: int
) -> None:
    stage.add("b1", "e", "blue")
    stage.publish(endpoint())
    stage.edge.wait_up("b1")
    with stage.edge.http() as http:
        answer = http.post("/endpoints/e/score", headers={**auth, "want": str(status)})
    assert answer.status_code == 424
    assert answer.headers["ms-azureml-model-error-statuscode"] == str(status)
    assert answer.headers["ms-azureml-model-error-reason"] == "model_error"
    assert answer.json()["by"] == "b1"


@pytest.mark.parametrize(("reason", "status"), [
    ("request_timeout", 408), ("too_many_pending_requests", 429), ("body_too_large", 413),
])
def test_reasons_of_a_container_become_codes_of_the_endpoint(
    stage: Stage, auth: dict[str, str], reason: str, status: int
) -> None:
    stage.add("b1", "e", "blue")
    stage.publish(endpoint())
    stage.edge.wait_up("b1")
    with stage.edge.http() as http:
        answer = http.post("/endpoints/e/score", headers={
            **auth, "want": "503", "reason": reason,
        })
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert ("retry-after" in answer.headers) == (status == 429)
    assert "x-inferay-reason" not in answer.headers


def test_a_replica_sees_the_secret_and_nothing_that_clients_say_in_our_name(
    stage: Stage, auth: dict[str, str]
) -> None:
    blue = stage.add("b1", "e", "blue")
    stage.publish(endpoint())
    stage.edge.wait_up("b1")
    with stage.edge.http() as http:
        http.post("/endpoints/e/score", headers={
            **auth, "x-inferay-edge": "forged", "x-inferay-mirror": "blue",
            "X-Inferay-Shadow": "blue", "x-forwarded-for": "1.2.3.4", "x-ray-serve": "1",
            "serve_multiplexed_model_id": "1", "x-request-timeout-seconds": "1",
        })
    headers = blue.seen[0]["headers"]
    secret = stage.edge.register("e", "blue", "1", "b1", blue.port)["secret"]
    assert headers["x-inferay-edge"] == secret
    ours = {name for name in headers if name.startswith(("x-inferay", "x-f", "x-ray", "serve"))}
    assert ours == {"x-inferay-edge"}


def test_more_requests_than_fit_are_refused_at_once(
    stage: Stage, auth: dict[str, str]
) -> None:
    blue = stage.add("b1", "e", "blue")
    stage.publish(endpoint(requests_max=2))
    stage.edge.wait_up("b1")
    blue.held.clear()
    import concurrent.futures

    with stage.edge.http() as http, concurrent.futures.ThreadPoolExecutor(8) as pool:
        held = [pool.submit(http.post, "/endpoints/e/score", headers=auth) for _ in range(2)]
        wait_until(lambda: len(blue.seen) == 2, "two requests in the container")
        refused = http.post("/endpoints/e/score", headers=auth)
        blue.held.set()
        assert [one.result().status_code for one in held] == [200, 200]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.headers["azureml-model-deployment"] == "blue"


def test_a_replica_that_does_not_answer_in_time_is_408_for_the_client(
    stage: Stage, auth: dict[str, str]
) -> None:
    blue = stage.add("b1", "e", "blue")
    stage.publish(endpoint(timeout_s=0.3))
    stage.edge.wait_up("b1")
    blue.held.clear()
    with stage.edge.http() as http:
        answer = http.post("/endpoints/e/score", headers=auth)
    blue.held.set()
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "RequestTimeout")


def test_a_new_revision_takes_over_without_a_lost_request(
    stage: Stage, auth: dict[str, str]
) -> None:
    stage.add("b1", "e", "blue", "1")
    stage.publish(endpoint())
    stage.edge.wait_up("b1")
    stage.add("new", "e", "blue", "2")
    stage.edge.wait_up("new")
    with stage.edge.http() as http:
        assert http.post("/endpoints/e/score", headers=auth).json()["by"] == "b1"
        stage.publish(endpoint(deployments={"blue": "2"}))
        assert http.post("/endpoints/e/score", headers=auth).json()["by"] == "new"


def test_a_replica_that_leaves_gets_nothing_more_but_answers_what_it_has(
    stage: Stage, auth: dict[str, str]
) -> None:
    import concurrent.futures

    one = stage.add("b1", "e", "blue")
    stage.add("b2", "e", "blue")
    stage.publish(endpoint())
    stage.edge.wait_up("b1", "b2")
    one.held.clear()
    with stage.edge.http() as http, concurrent.futures.ThreadPoolExecutor(4) as pool:
        calls = []

        def has_one_on_the_first() -> bool:
            calls.append(pool.submit(http.post, "/endpoints/e/score", headers=auth))
            concurrent.futures.wait(calls, timeout=0.1)
            return bool(one.seen)

        wait_until(has_one_on_the_first, "a request on the replica that is held")
        assert not stage.leave("b1")
        told = [http.post("/endpoints/e/score", headers=auth).json()["by"] for _ in range(10)]
        one.held.set()
        assert "b1" in {call.result().json()["by"] for call in calls}
        assert set(told) == {"b2"}
        wait_until(lambda: stage.leave("b1"), "the end of the drain")
    assert stage.edge.replica("b1") is None


def test_mirrored_requests_are_marked_with_the_targets_and_an_id_of_their_own(
    stage: Stage, auth: dict[str, str]
) -> None:
    blue, green = stage.add("b1", "e", "blue"), stage.add("g1", "e", "green")
    both = {"blue": "1", "green": "1"}
    stage.publish(endpoint(mirror={"green": 100, "blue": 100}, deployments=both))
    stage.edge.wait_up("b1", "g1")
    with stage.edge.http() as http:
        for _ in range(2):
            http.post("/endpoints/e/score", headers=auth)
        http.post("/endpoints/e/score", headers={**auth, "azureml-model-deployment": "green"})
    marks = [one["headers"]["x-inferay-mirror"].strip(",") for one in blue.seen]
    assert marks == ["green", "green"]   # what answers is no shadow of itself
    assert green.seen[0]["headers"]["x-inferay-mirror"].strip(",") == "blue"
    ids = {one["headers"]["x-inferay-request"] for one in [*blue.seen, *green.seen]}
    assert len(ids) == 3


def test_each_target_of_a_mirror_is_drawn_by_itself(stage: Stage, auth: dict[str, str]) -> None:
    blue = stage.add("b1", "e", "blue")
    names = [f"t{number}" for number in range(6)]   # more than the spare places: it reloads
    stage.publish(endpoint(
        mirror=dict.fromkeys(names, 50), deployments=dict.fromkeys(["blue", *names], "1")
    ))
    stage.edge.wait_up("b1")
    with stage.edge.http() as http:
        for _ in range(200):
            http.post("/endpoints/e/score", headers=auth)
    count: Counter[str] = Counter()
    for one in blue.seen:
        count.update(filter(None, one["headers"].get("x-inferay-mirror", "").split(",")))
    assert set(count) == set(names)
    assert all(60 <= count[name] <= 140 for name in names)


def test_a_copy_reaches_its_target_with_the_secret_only(
    stage: Stage, auth: dict[str, str]
) -> None:
    stage.add("b1", "e", "blue")
    green = stage.add("g1", "e", "green")
    stage.publish(endpoint(mirror={"green": 100}, deployments={"blue": "1", "green": "1"}))
    stage.edge.wait_up("b1", "g1")
    told = stage.edge.register("e", "green", "1", "g1", green.port)
    url = f"http://{told['mirror']['host']}:{told['mirror']['port']}/endpoints/e/score"
    marks = {"x-inferay-shadow": "green", "x-inferay-request": "id-1", "want": "500"}
    refused = httpx.post(url, headers=marks | {"x-inferay-edge": "forged"}, trust_env=False)
    assert refused.status_code == 403
    answer = httpx.post(
        url, headers=marks | {"x-inferay-edge": told["secret"]}, content=b"[1]", trust_env=False
    )
    assert answer.status_code == 500   # as the container says it
    assert answer.headers["azureml-model-deployment"] == "green"
    assert green.seen[0]["headers"]["x-inferay-request"] == "id-1"
    assert "x-inferay-mirror" not in green.seen[0]["headers"]


def test_only_a_revisions_own_credential_registers_it(running: RunningEdge) -> None:
    body = {"id": "x", "endpoint": "e", "deployment": "blue", "revision": "1",
            "host": "127.0.0.1", "port": 1}
    of_another = running.credential("e", "green", "1")
    answer = httpx.post(f"{running.management}/replicas", json=body, trust_env=False,
                        headers={"authorization": f"Bearer {of_another}"})
    assert answer.status_code == 401
    assert running.replica("x") is None


@pytest.mark.parametrize("wrong", [
    {"id": "a b"}, {"id": "a\nshutdown frontend public"}, {"host": "evil.example"},
    {"host": "1.2.3.4 weight 0"}, {"port": 0}, {"port": "1"}, {"port": 65536},
    {"revision": "1;x"},
])
def test_nothing_but_names_and_addresses_reaches_haproxy(
    running: RunningEdge, wrong: dict[str, object]
) -> None:
    body = {"id": "x", "endpoint": "e", "deployment": "blue", "revision": "1",
            "host": "127.0.0.1", "port": 1} | wrong
    answer = httpx.post(f"{running.management}/replicas", json=body, trust_env=False,
                        headers={"authorization": f"Bearer {running.credential('e', 'b', '1')}"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "InvalidInput"


def test_a_table_with_a_name_that_is_none_is_refused(stage: Stage) -> None:
    with pytest.raises(InvalidInput, match="cannot be a name"):
        stage.publish(EndpointRoute("e", deployments=(DeploymentRoute("a b", "1", 1, 1),)))


def test_a_failed_constructor_is_in_the_state(running: RunningEdge) -> None:
    error: dict[str, object] = {
        "code": "UserCodeError", "message": "init() raised", "target": None, "details": [],
    }
    answer = httpx.post(
        f"{running.management}/failures", trust_env=False,
        headers={"authorization": f"Bearer {running.credential('e', 'blue', '9')}"},
        json={"endpoint": "e", "deployment": "blue", "revision": "9", "replica": "r",
              "error": error},
    )
    assert answer.status_code == 204
    assert [one.error for one in running.state().failures if one.revision == "9"] == [error]


def test_a_table_can_be_published_again_and_again(stage: Stage) -> None:
    table = RoutingTable((endpoint(),))
    client = stage.edge.client()
    for _ in range(3):
        client.publish(table)
    client.close()
