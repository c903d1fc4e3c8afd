from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferay import Client
from inferay.cli.online import parse_shares
from inferay.client.online import failure
from inferay.engine.resources import OnlineDeployment, OnlineEndpoint, load
from inferay.errors import (
    Conflict,
    InferayError,
    InvalidInput,
    NotAuthorized,
    NotFound,
    Unavailable,
    UserCodeError,
)
from inferay.processes import free_ports
from tests.cli.online_served import ServedOnline, served_online, write_project


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedOnline]:
    with served_online(tmp_path_factory.mktemp("online")) as served:
        yield served


@pytest.fixture
def client(served: ServedOnline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client of a plane where `blue` gets all requests of `sums`."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    client = served.client
    if not client.online_endpoints.list():
        client.online_endpoints.create_or_update(load(OnlineEndpoint, "endpoint.yml").entity)
        client.online_deployments.create(declared(), all_traffic=True)
    return client


def declared(*overrides: str) -> OnlineDeployment:
    return load(OnlineDeployment, "blue.yml", overrides).entity


def test_a_request_may_be_bytes_text_or_what_json_can_say(client: Client) -> None:
    for request in (b"[1, 2]", "[1, 2]", [1, 2]):
        answer = client.online_endpoints.invoke("sums", request)
        assert answer.value == {"version": "1", "sum": 3}
        assert json.loads(answer.body) == answer.value
        assert answer.deployment == "blue"
        assert len(answer.request_id) == 36
    with pytest.raises(UserCodeError, match="answered 424, its model 500") as caught:
        client.online_endpoints.invoke("sums", {"a": 1}, deployment_name="blue")
    assert caught.value.code == "ModelError"
    with pytest.raises(InvalidInput, match="is no name"):
        client.online_endpoints.invoke("sums", [], deployment_name="blue\r\nx: y")


def test_a_scorer_invokes_its_endpoint_with_a_token_of_it_and_no_other(
    client: Client, served: ServedOnline, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("mine", "yours")
    for name in names:
        client.online_endpoints.create_or_update(OnlineEndpoint(name=name, auth_mode="aml_token"))
    made = client.http.post("/v1/tokens", {"name": "s", "role": "scorer", "endpoint": "mine"})
    address = client.http.address
    monkeypatch.setenv("INFERAY_URL", address.url)
    monkeypatch.setenv("INFERAY_CA", str(address.ca))
    monkeypatch.setenv("INFERAY_TOKEN", made["token"])
    with Client() as scorer:
        with pytest.raises(NotFound, match="takes traffic"):   # the edge let it in
            scorer.online_endpoints.invoke("mine", [])
        for refused in (
            lambda: scorer.online_endpoints.invoke("yours", []),
            lambda: scorer.online_endpoints.invoke("sums", []), scorer.online_endpoints.list,
            lambda: scorer.online_endpoints.delete("mine"),
        ):
            with pytest.raises(NotAuthorized, match="the token 's' of role scorer may not do this"):
                refused()
    for name in names:
        client.online_endpoints.delete(name)


def test_traffic_is_set_rule_by_rule(client: Client) -> None:
    endpoint = client.online_endpoints.set_traffic("sums", mirror_traffic={"blue": 5})
    assert (dict(endpoint.traffic), dict(endpoint.mirror_traffic)) == ({"blue": 100}, {"blue": 5})
    endpoint = client.online_endpoints.set_traffic("sums", {"blue": 100}, {})
    assert (dict(endpoint.traffic), dict(endpoint.mirror_traffic)) == ({"blue": 100}, {})
    for wrong in ({"blue": 50}, {"ghost": 100}, {"blue": 101}):
        with pytest.raises(InvalidInput) as caught:
            client.online_endpoints.set_traffic("sums", wrong)
        assert "\n" not in caught.value.message
    assert dict(client.online_endpoints.get("sums").traffic) == {"blue": 100}


def test_an_endpoint_that_fails_at_once_says_why(client: Client) -> None:
    [port] = free_ports(1)
    endpoint = OnlineEndpoint(name="guarded", auth_mode="aad_token", properties={
        "inferay.token_issuer": "https://issuer", "inferay.token_audience": "api://me",
        "inferay.jwks_uri": f"http://127.0.0.1:{port}/keys",
    })
    with pytest.raises(InferayError, match="https://issuer cannot be fetched") as caught:
        client.online_endpoints.create_or_update(endpoint)
    assert caught.value.code == "IssuerUnavailable"
    client.online_endpoints.delete("guarded")


def test_a_deployment_is_created_once_and_then_updated(client: Client) -> None:
    with pytest.raises(Conflict, match="has a deployment 'blue' already"):
        client.online_deployments.create(declared())
    updated = client.online_deployments.create_or_update(
        declared("tags.team=a", "environment_variables.VERSION=3")
    )
    assert updated.tags == {"team": "a"}
    assert client.online_endpoints.invoke("sums", [1]).value["version"] == "3"
    with pytest.raises(UserCodeError, match="RuntimeError: no weights") as caught:
        client.online_deployments.create_or_update(declared("environment_variables.BREAK=1"))
    assert 'File "score.py", line 9, in init' in (caught.value.details or "")
    assert client.online_endpoints.invoke("sums", [1]).value["version"] == "3"
    assert client.online_deployments.create_or_update(declared()).name == "blue"


def test_who_does_not_wait_is_told_what_is_under_way(client: Client, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    later = declared("name=later", f"environment_variables.WAIT_WHILE={mark}")
    begun = client.online_deployments.create_or_update(later, wait=False)
    assert begun.name == "later"
    with pytest.raises(Conflict, match="is under way"):
        client.online_deployments.create_or_update(later, wait=False)
    mark.unlink()
    client.online_deployments.delete("later", "sums")
    assert [one.name for one in client.online_deployments.list("sums")] == ["blue"]


def test_logs_have_a_length_and_a_container(client: Client) -> None:
    client.online_endpoints.invoke("sums", [8])
    assert "asked for [8]" in client.online_deployments.get_logs("blue", "sums", lines=5)
    with pytest.raises(InvalidInput, match="expected inference-server"):
        client.online_deployments.get_logs("blue", "sums", container="nginx")


@pytest.mark.parametrize(("status", "cls"), [
    (400, InvalidInput), (401, NotAuthorized), (404, NotFound), (408, Unavailable),
    (413, InvalidInput), (418, InferayError), (424, UserCodeError), (429, Unavailable),
    (500, InferayError), (502, Unavailable), (503, Unavailable),
])
def test_a_status_of_a_scoring_uri_is_an_error_of_its_class(
    status: int, cls: type[InferayError]
) -> None:
    headers = {"ms-azureml-model-error-statuscode": "500"}
    for text, said in (
        ('{"error": {"code": "C", "message": "why"}}', "why"), ('{"message": "why"}', "why"),
        ("why", "why"), ("[]", ""), ('{"error": 7}', ""), ("", ""), ("<html>\n</html>\n", ""),
        ("x" * 10_000, "xxx"), ('{"message": 7}', ""), ("one\ntwo", "one two"),
    ):
        error = failure("sums", "blue", status, headers, text)
        assert type(error) is cls
        assert f"deployment 'blue' of endpoint 'sums' answered {status}" in error.message
        assert said in error.message
        assert "\n" not in error.message
        assert len(error.message) < 1000


@pytest.mark.parametrize(("words", "shares"), [
    (["blue=90 green=10"], {"blue": 90, "green": 10}), (["a=0"], {"a": 0}),
    (["a=50%,", "b=50%"], {"a": 50, "b": 50}), (["v1.2_x-y=100"], {"v1.2_x-y": 100}),
])
def test_percentages_are_read(words: list[str], shares: dict[str, int]) -> None:
    assert parse_shares("--traffic", words) == shares


@pytest.mark.parametrize("words", [
    [], [""], ["blue"], ["=10"], ["blue="], ["blue=1.5"], ["blue=-1"], ["blue=1000"],
    ["blue=10green=90"], ["blue=10%%"], ["blue==10"], ["blue=10 %"], ["blue=10;green=90"],
    ["blue=\u0661"],
])
def test_what_are_no_percentages_is_refused(words: list[str]) -> None:
    with pytest.raises(InvalidInput, match="expected NAME=PERCENT") as caught:
        parse_shares("--traffic", words)
    assert "\n" not in caught.value.message
