from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import select

from inferay.control.issuers import Issuers
from inferay.control.tables import Operation, now
from inferay.serve.routing import RoutingTable
from tests.control.conftest import deploy
from tests.control.online_plane import DIES, RAISES, OnlinePlane, Wires, routed
from tests.edges import TOKEN_KEY, started
from tests.http_site import http_site

CODES = {
    "one": 'NAME = "one"', "two": 'NAME = "two"', "bad": f"{RAISES}ValueError: no weights",
    "dead": DIES,
}


@pytest.fixture(scope="module")
def wires(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wires]:
    with started(tmp_path_factory.mktemp("edge")) as edge:
        wires = Wires(edge)
        yield wires
        wires.close()


@pytest.fixture(scope="module")
def plane_of_module(
    tmp_path_factory: pytest.TempPathFactory, wires: Wires
) -> Iterator[OnlinePlane]:
    plane = OnlinePlane(tmp_path_factory.mktemp("plane") / "home", wires)
    yield plane
    plane.close()


@pytest.fixture
def online(plane_of_module: OnlinePlane) -> Iterator[OnlinePlane]:
    plane = plane_of_module
    for version, script in CODES.items():
        plane.put_code(version, script)
    yield plane
    plane.clear()


@pytest.fixture
def serving(online: OnlinePlane) -> OnlinePlane:
    """Endpoint `digits` with all its traffic on deployment `blue`, of code `one`."""
    online.put_endpoint()
    assert online.finish(online.put_deployment())["status"] == "Succeeded"
    online.put_endpoint(traffic={"blue": 100})
    return online


def refused(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["message"]


def test_a_deployment_answers_by_header_at_0_percent_and_then_takes_traffic(
    online: OnlinePlane
) -> None:
    online.put_endpoint()
    answer = online.put_deployment()
    assert (answer.status_code, answer.json()["properties"]["provisioningState"]) == (
        201, "Creating",
    )
    assert online.finish(answer)["status"] == "Succeeded"
    key = online.keys()["primaryKey"]
    assert online.score(key).status_code == 404
    assert online.answered_by(**{"azureml-model-deployment": "blue"}) == "one"
    online.put_endpoint(traffic={"blue": 100})
    assert online.score(key).json()["by"] == "one"
    assert online.score(online.keys()["secondaryKey"]).status_code == 200
    assert online.score("wrong").status_code == 401


def test_a_view_has_what_azures_sdk_reads(serving: OnlinePlane) -> None:
    endpoint = serving.http.get("/v1/onlineEndpoints/digits").json()
    assert endpoint["properties"] == {
        "authMode": "Key", "properties": {}, "traffic": {"blue": 100}, "mirrorTraffic": {},
        "scoringUri": "https://test/endpoints/digits/score",
        "swaggerUri": "https://test/endpoints/digits/swagger.json",
        "provisioningState": "Succeeded",
    }
    assert endpoint["type"].endswith("/onlineEndpoints")
    found = serving.http.get("/v1/onlineEndpoints/digits/deployments").json()["value"]
    assert [one["name"] for one in found] == ["blue"]
    assert found[0]["sku"]["capacity"] == 1
    assert found[0]["properties"]["scaleSettings"] == {"scaleType": "Default"}
    assert found[0]["properties"]["endpointComputeType"] == "Managed"


def test_traffic_goes_only_to_deployments_that_were_up(serving: OnlinePlane) -> None:
    address = "/v1/onlineEndpoints/digits"

    def put(**properties: Any) -> tuple[int, str]:
        return refused(serving.http.put(address, json={"properties": properties}))

    assert put(traffic={"blue": 60})[0] == 400
    status, message = put(traffic={"blues": 100})
    assert (status, "no deployment 'blues'; did you mean 'blue'" in message) == (400, True)
    assert put(mirrorTraffic={"green": 10})[0] == 400
    serving.put_deployment("green")
    status, message = put(traffic={"blue": 90, "green": 10})
    assert (status, "is Creating and was never up" in message) == (409, True)


def test_a_put_that_does_not_name_traffic_leaves_it(serving: OnlinePlane) -> None:
    serving.put_endpoint(description="new")
    assert serving.answered_by() == "one"
    serving.put_endpoint(traffic={})
    assert serving.score(serving.keys()["primaryKey"]).status_code == 404


def test_a_rule_that_is_null_stays_and_names_are_read_in_any_case(serving: OnlinePlane) -> None:
    serving.put_endpoint(traffic=None, mirrorTraffic=None)
    assert serving.answered_by() == "one"
    body = {"Properties": {"AuthMode": "Key", "Traffic": {}}}
    serving.finish(serving.http.put("/v1/onlineEndpoints/digits", json=body))
    assert serving.score(serving.keys()["primaryKey"]).status_code == 404


@pytest.mark.parametrize(("properties", "said"), [
    ({"inferay.retry_sent_request": "true"}, "did you mean 'inferay.retry_sent_requests'?"),
    ({"inferay.retry_sent_requests": "yes"}, 'expected "true" or "false", got'),
    ({"inferay.token_issuer": "x"}, "belong together"),
])
def test_a_property_of_ours_that_would_do_nothing_is_refused(
    online: OnlinePlane, properties: dict[str, str], said: str
) -> None:
    body = {"properties": {"authMode": "AADToken", "properties": properties}}
    status, message = refused(online.http.put("/v1/onlineEndpoints/digits", json=body))
    assert (status, said in message) == (400, True)


def test_a_deployment_with_traffic_is_not_deleted(serving: OnlinePlane) -> None:
    address = "/v1/onlineEndpoints/digits/deployments/blue"
    serving.finish(serving.put_deployment("green", "two"))
    status, message = refused(serving.http.delete(address))
    assert status == 409
    assert 'inferay online-endpoint update -n digits --traffic "green=100"' in message
    serving.put_endpoint(traffic={"green": 100}, mirrorTraffic={"blue": 5})
    assert '--mirror-traffic "blue=0"' in refused(serving.http.delete(address))[1]
    serving.put_endpoint(mirrorTraffic={"blue": 5, "green": 10})
    assert '--mirror-traffic "green=10"' in refused(serving.http.delete(address))[1]
    serving.put_endpoint(mirrorTraffic={})
    serving.finish(serving.http.delete(address))
    assert serving.http.get(address).status_code == 404
    assert serving.score(
        serving.keys()["primaryKey"], **{"azureml-model-deployment": "blue"}
    ).status_code == 404
    serving.turn()
    assert [name.split(".")[1] for name in serving.serve.containers] == ["green"]


def test_the_only_deployment_is_deleted_after_its_traffic(serving: OnlinePlane) -> None:
    address = "/v1/onlineEndpoints/digits/deployments/blue"
    assert '--traffic "blue=0"' in refused(serving.http.delete(address))[1]
    serving.put_endpoint(traffic={"blue": 0})
    assert serving.finish(serving.http.delete(address))["status"] == "Succeeded"


def test_a_regenerated_key_opens_nothing_once_the_put_is_answered(serving: OnlinePlane) -> None:
    address = "/v1/onlineEndpoints/digits/regenerateKeys"
    before = serving.keys()
    body = {"keyType": "Secondary", "keyValue": before["secondaryKey"]}   # as Azure's SDK sends
    answer = serving.http.post(address, json=body)
    assert answer.status_code == 200
    serving.finish(answer)
    after = serving.keys()
    assert after["primaryKey"] == before["primaryKey"]
    assert after["secondaryKey"] != before["secondaryKey"]
    assert serving.score(before["secondaryKey"]).status_code == 401
    assert serving.score(after["secondaryKey"]).status_code == 200
    chosen = "a-key-of-my-own-with-32-characters!"
    answer = serving.http.post(address, json={"keyType": "primary", "keyValue": chosen})
    assert (answer.status_code, chosen in answer.text) == (400, False)
    serving.finish(serving.http.post(address, json={"keyType": "primary", "keyValue": chosen[:-1]}))
    assert serving.score(chosen[:-1]).status_code == 200
    assert serving.http.post(address, json={"keyType": "third"}).status_code == 400


def test_keys_lie_nowhere_in_the_clear(serving: OnlinePlane) -> None:
    keys = serving.keys()
    kept = b"".join(path.read_bytes() for path in serving.workspace.home.rglob("*")
                    if path.is_file())
    for address in ("/v1/onlineEndpoints", "/v1/onlineEndpoints/digits/deployments"):
        kept += serving.http.get(address).content
    for key in keys.values():
        assert len(key) >= 43
        assert key.encode() not in kept


def test_a_token_opens_its_endpoint_until_it_is_regenerated(
    serving: OnlinePlane
) -> None:
    serving.put_endpoint("other", authMode="AMLToken")
    serving.put_endpoint(authMode="AADToken")
    status, message = refused(serving.http.post("/v1/onlineEndpoints/digits/listKeys"))
    assert (status, "auth_mode aad_token" in message) == (409, True)

    def token(endpoint: str = "digits") -> dict[str, Any]:
        found: dict[str, Any] = serving.http.post(f"/v1/onlineEndpoints/{endpoint}/token").json()
        return found

    given = token()
    claims = jwt.decode(
        given["accessToken"], TOKEN_KEY, ["HS256"], audience="endpoint:digits", issuer="inferay"
    )
    assert given["tokenType"] == "Bearer"
    assert given["expiryTimeUtc"] == claims["exp"] == claims["iat"] + 3600
    assert given["refreshAfterTimeUtc"] == claims["iat"] + 1800
    assert serving.score(given["accessToken"]).status_code == 200
    assert serving.score(token("other")["accessToken"]).status_code == 401
    serving.finish(serving.http.post(
        "/v1/onlineEndpoints/digits/regenerateKeys", json={"keyType": "Primary"}
    ))
    assert serving.score(given["accessToken"]).status_code == 401
    assert serving.score(token()["accessToken"]).status_code == 200


def test_a_token_of_a_deleted_endpoint_does_not_open_the_next_one_of_its_name(
    online: OnlinePlane
) -> None:
    def token() -> str:
        return str(online.http.post("/v1/onlineEndpoints/digits/token").json()["accessToken"])

    online.put_endpoint(authMode="AMLToken")
    old = token()
    online.finish(online.http.delete("/v1/onlineEndpoints/digits"))
    online.put_endpoint(authMode="AMLToken")
    assert online.score(old).status_code == 401
    assert online.score(token()).status_code == 404   # no deployment takes traffic


def test_a_token_of_an_issuer_outside_opens_the_endpoint_until_its_key_is_gone(
    serving: OnlinePlane
) -> None:
    one, two = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    names = {"inferay.token_issuer": "https://issuer/v2.0", "inferay.token_audience": "api://me"}

    def opens(key: rsa.RSAPrivateKey, kid: str, **claims: str) -> int:
        payload = {"iss": "https://issuer/v2.0", "aud": "api://me", "exp": time.time() + 60}
        token = jwt.encode(payload | claims, key, "RS256", {"kid": kid})
        return serving.score(token).status_code

    with http_site() as site:
        site.files["/keys"] = key_set(k1=one)
        properties = {**names, "inferay.jwks_uri": f"{site.url}/keys"}
        ended = serving.put_endpoint(authMode="AADToken", properties=properties)
        assert ended["status"] == "Succeeded"
        assert (opens(one, "k1"), opens(two, "k1"), opens(one, "k1", aud="api://you")) == (
            200, 401, 401,
        )
        site.files["/keys"] = key_set(k2=two)
        Issuers(serving.context).turn()
        serving.turn()
        assert (opens(one, "k1"), opens(two, "k2")) == (401, 200)
        del site.files["/keys"]
        Issuers(serving.context).turn()   # an issuer that is away changes nothing
        serving.turn()
        assert opens(two, "k2") == 200
        ended = serving.put_endpoint(
            authMode="AADToken", properties=properties, mirrorTraffic={"blue": 5}
        )
        assert (ended["status"], opens(two, "k2")) == ("Succeeded", 200)
        properties["inferay.jwks_uri"] = f"{site.url}/elsewhere"
        ended = serving.put_endpoint(authMode="AADToken", properties=properties)
        assert (ended["status"], ended["error"]["code"]) == ("Failed", "IssuerUnavailable")
        serving.turn()
        assert opens(two, "k2") == 401


def key_set(**keys: rsa.RSAPrivateKey) -> bytes:
    return json.dumps({"keys": [
        {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid}
        for kid, key in keys.items()
    ]}).encode()


def test_an_endpoint_name_is_unique_over_batch_and_online(
    online: OnlinePlane, tmp_path: Path
) -> None:
    code = tmp_path / "batch"
    code.mkdir()
    (code / "score.py").write_text("")
    deploy(online, code, endpoint="mine")
    online.put_endpoint("ours")
    for kind, name, other in (("online", "mine", "a batch"), ("batch", "ours", "an online")):
        status, message = refused(
            online.http.put(f"/v1/{kind}Endpoints/{name}", json={"properties": {}})
        )
        assert (status, f"that of {other} endpoint" in message) == (409, True)
    for kind, name in (("online", "ours"), ("batch", "mine")):
        found = online.http.get(f"/v1/{kind}Endpoints").json()["value"]
        assert [one["name"] for one in found] == [name]


def test_a_new_version_takes_over_once_it_is_up(serving: OnlinePlane) -> None:
    (old,) = serving.serve.containers
    serving.serve.is_stuck = True
    answer = serving.put_deployment(version="two")
    for _ in range(3):
        serving.turn()
    assert serving.deployment()["provisioningState"] == "Updating"
    assert (len(serving.serve.containers), serving.answered_by()) == (2, "one")
    serving.serve.is_stuck = False
    serving.serve.forget()   # Serve may lose everything, too
    serving.look_at_serve()
    assert serving.finish(answer)["status"] == "Succeeded"
    assert serving.answered_by() == "two"
    serving.turn()
    (new,) = serving.serve.containers
    assert new != old
    assert serving.serve.routed_at_removal[-1] in new   # the old one left when it had no requests


def test_a_version_that_cannot_start_changes_nothing_and_says_why(
    serving: OnlinePlane
) -> None:
    ended = serving.finish(serving.put_deployment(version="bad"))
    error = serving.deployment()["error"]
    assert (ended["status"], ended["error"]) == ("Failed", error)
    assert error["code"] == "InitFailed"
    assert error["message"] == "init() raised ValueError: no weights"
    assert error["details"][0]["message"] == "Traceback\nValueError: no weights"
    assert serving.deployment()["provisioningState"] == "Failed"
    assert serving.answered_by() == "one"
    serving.turn()
    assert len(serving.serve.containers) == 1
    assert serving.finish(serving.put_deployment(version="two"))["status"] == "Succeeded"
    assert (serving.answered_by(), serving.deployment().get("error")) == ("two", None)


def test_what_dies_without_a_word_is_told_as_serve_tells_it(
    serving: OnlinePlane
) -> None:
    ended = serving.finish(serving.put_deployment("green", "dead"))
    assert ended["error"]["code"] == "ReplicaFailed"
    assert "deployment 'green' ended while it started" in ended["error"]["message"]
    assert "exit code 3" in ended["error"]["message"]


def test_instances_that_do_not_come_up_in_time_are_a_failure(
    serving: OnlinePlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferay.control.online_steps.START_S_MIN", 0.0)
    serving.serve.is_stuck = True
    probe = {"initialDelay": "PT0S", "period": "PT1S", "failureThreshold": 1}
    ended = serving.finish(serving.put_deployment("green", readinessProbe=probe))
    assert ended["error"]["code"] == "NotReady"
    assert "0 of 1 instances of deployment 'green' were up after 1 s" in ended["error"]["message"]
    assert "waits for CPUs" in ended["error"]["message"]


def test_a_control_plane_that_was_down_for_long_gives_instances_their_time(
    serving: OnlinePlane
) -> None:
    serving.serve.is_stuck = True
    put = serving.put_deployment("green")
    serving.turn()
    with serving.database.write() as session:
        for one in session.scalars(select(Operation).where(Operation.status == "Running")):
            one.created_at -= timedelta(days=1)
    serving.context.started_at = now()
    for _ in range(3):
        serving.turn()
    serving.serve.is_stuck = False
    serving.serve.forget()
    serving.look_at_serve()
    assert serving.finish(put)["status"] == "Succeeded"


def test_another_number_of_instances_starts_no_new_version(serving: OnlinePlane) -> None:
    (name,) = serving.serve.containers
    before = serving.serve.puts[-1][name]
    assert serving.finish(serving.put_deployment(instances=3))["status"] == "Succeeded"
    after = serving.serve.puts[-1][name]
    assert (after["args"], after["deployments"][0]["num_replicas"]) == (before["args"], 3)
    assert len(serving.serve.containers[name]) == 3
    serving.finish(serving.put_deployment(
        description="scaled",
        scaleSettings={"scaleType": "TargetUtilization", "minInstances": 1, "maxInstances": 2},
    ))
    serving.turn()
    scaled = serving.serve.puts[-1][name]
    assert scaled["args"] == before["args"]
    assert "autoscaling_config" in scaled["deployments"][0]
    serving.finish(serving.put_deployment(
        requestSettings={"maxConcurrentRequestsPerInstance": 4}
    ))
    serving.turn()
    assert name not in serving.serve.containers


def test_a_change_keeps_the_instances_that_the_load_has_made(serving: OnlinePlane) -> None:
    scale = {"scaleType": "TargetUtilization", "minInstances": 1, "maxInstances": 4}
    serving.finish(serving.put_deployment(scaleSettings=scale))
    (name,) = serving.serve.containers
    serving.serve.scale(name, 3)
    serving.finish(serving.put_deployment(scaleSettings=scale | {"maxInstances": 5}))
    serving.turn()
    assert len(serving.serve.containers[name]) == 3
    serving.finish(serving.put_deployment(version="two", scaleSettings=scale))
    serving.turn()
    (new,) = serving.serve.containers
    assert (new == name, len(serving.serve.containers[new])) == (False, 3)


def test_deleting_an_endpoint_ends_its_keys_before_its_replicas(serving: OnlinePlane) -> None:
    keys = serving.keys()
    ended = serving.finish(serving.http.delete("/v1/onlineEndpoints/digits"))
    assert ended["status"] == "Succeeded"
    assert serving.score(keys["primaryKey"]).status_code == 404
    serving.turn()
    assert serving.serve.containers == {}
    assert serving.serve.routed_at_removal == [""]
    assert serving.http.get("/v1/onlineEndpoints").json()["value"] == []
    assert serving.serve.puts[-1] == {}


def test_an_endpoint_can_be_deleted_while_a_deployment_of_it_starts(serving: OnlinePlane) -> None:
    serving.serve.is_stuck = True
    put = serving.put_deployment("green")
    serving.turn()
    serving.finish(serving.http.delete("/v1/onlineEndpoints/digits"))
    assert "was deleted while it was put" in serving.finish(put)["error"]["message"]
    serving.turn()
    assert serving.serve.containers == {}


def test_a_deployment_can_be_deleted_while_it_starts(serving: OnlinePlane) -> None:
    address = "/v1/onlineEndpoints/digits/deployments/green"
    serving.serve.is_stuck = True
    put = serving.put_deployment("green")
    serving.turn()
    deleted = serving.http.delete(address)
    assert serving.http.get(address).status_code == 404
    assert refused(serving.put_deployment("green"))[0] == 409
    assert serving.finish(deleted)["status"] == "Succeeded"
    assert "was deleted while it was put" in serving.finish(put)["error"]["message"]
    serving.turn()
    assert [name.split(".")[1] for name in serving.serve.containers] == ["blue"]
    serving.serve.is_stuck = False
    assert serving.finish(serving.put_deployment("green"))["status"] == "Succeeded"


def test_the_edge_is_told_again_what_it_lost(serving: OnlinePlane) -> None:
    key = serving.keys()["primaryKey"]
    serving.wires.client.publish(RoutingTable())
    assert serving.score(key).status_code == 404
    serving.turn()
    assert serving.score(key).status_code == 200


def test_a_change_waits_for_an_edge_that_is_away(serving: OnlinePlane) -> None:
    serving.is_edge_away = True
    answer = serving.http.put(
        "/v1/onlineEndpoints/digits", json={"properties": {"traffic": {}}}
    )
    for _ in range(3):
        serving.turn()
    address = "/v1/onlineEndpoints/digits"
    state = serving.http.get(address).json()["properties"]["provisioningState"]
    assert state == "Updating"
    serving.is_edge_away = False
    assert serving.finish(answer)["status"] == "Succeeded"
    assert serving.score(serving.keys()["primaryKey"]).status_code == 404


def test_serve_is_told_again_what_it_lost(serving: OnlinePlane) -> None:
    serving.serve.forget()
    serving.turn()
    assert serving.serve.containers == {}   # a look at Serve costs it work
    serving.look_at_serve()
    assert len(serving.serve.containers) == 1
    assert serving.answered_by() == "one"


def test_serve_is_asked_to_go_on_with_what_it_gave_up(serving: OnlinePlane) -> None:
    serving.serve.store_is_away = True
    serving.serve.forget()
    serving.look_at_serve()
    assert list(serving.serve.failed.values()) == ["OSError: the store is away"]
    serving.serve.store_is_away = False
    serving.look_at_serve()
    serving.turn()
    assert serving.serve.failed == {}
    assert serving.answered_by() == "one"


def test_a_control_plane_that_restarts_disturbs_nothing(
    serving: OnlinePlane
) -> None:
    edge = serving.wires.edge
    before = {name: list(ports) for name, ports in serving.serve.containers.items()}
    revision = routed(edge, "digits", "blue")
    serving.restart()
    serving.turn()
    assert {name: list(ports) for name, ports in serving.serve.containers.items()} == before
    assert routed(edge, "digits", "blue") == revision


def test_without_online_endpoints_serve_is_not_even_started(online: OnlinePlane) -> None:
    online.turn()
    assert online.serve.puts == []


def test_logs_are_of_the_live_version_or_of_the_newest_that_failed(
    serving: OnlinePlane
) -> None:
    address = "/v1/onlineEndpoints/digits/deployments/blue/getLogs"
    folder = serving.workspace.online_logs("digits", "blue")
    (live,) = serving.serve.containers
    logs = folder / live.split(".")[2]
    logs.mkdir(parents=True)
    (logs / "r1.log").write_text("".join(f"line {n}\n" for n in range(10)))
    assert serving.http.post(address, json={"tail": 2}).json() == {"content": "line 8\nline 9\n"}
    (logs / "r2.log").write_text("other\n")
    content = serving.http.post(address).json()["content"].splitlines()
    assert {"[r1] line 0", "[r1] line 9", "[r2] other"} <= set(content)
    serving.finish(serving.put_deployment(version="bad"))
    failed = folder / _newest(serving)
    failed.mkdir(parents=True)
    (failed / "r3.log").write_text("ValueError: no weights\n")
    assert serving.http.post(address).json()["content"] == "ValueError: no weights\n"
    for body in ({"tail": 0}, {"tail": "all"}, {"containerType": "x"}, {"lines": 3}):
        assert serving.http.post(address, json=body).status_code == 400
    assert serving.http.post(
        address, json={"containerType": "StorageInitializer"}
    ).json() == {"content": ""}


def _newest(plane: OnlinePlane) -> str:
    names = [name for put in plane.serve.puts for name in put]
    return max(name.split(".")[2] for name in names)
