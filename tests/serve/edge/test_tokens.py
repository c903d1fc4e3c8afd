"""Tokens of an endpoint, verified by the edge: what is not exactly one is answered as none."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from tests.edges import TOKEN_KEY
from tests.serve.edge.conftest import KEY, Stage, endpoint


def encoded(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(
    header: dict[str, Any] | None = None, key: str = TOKEN_KEY, digest: str = "sha256",
    **claims: Any,
) -> str:
    """Return a token of endpoint e, version 3, with these claims instead; None takes one away."""
    now = int(time.time())
    payload = {"iss": "inferay", "aud": "endpoint:e", "ver": 3, "iat": now, "exp": now + 60}
    payload = {name: one for name, one in (payload | claims).items() if one is not None}
    signed = f"{encoded(header or {'alg': 'HS256', 'typ': 'JWT'})}.{encoded(payload)}"
    signature = hmac.new(key.encode(), signed.encode(), digest).digest()
    return f"{signed}.{encoded(signature)}"


@pytest.fixture
def stage_with_tokens(stage: Stage) -> Stage:
    stage.add("b1", "e", "blue")
    stage.publish(endpoint(token_version=3))
    stage.edge.wait_up("b1")
    return stage


def status(stage: Stage, given: str) -> int:
    with stage.edge.http() as http:
        return http.post(
            "/endpoints/e/score", headers={"authorization": f"Bearer {given}"}
        ).status_code


def test_a_token_of_the_endpoint_opens_it(stage_with_tokens: Stage) -> None:
    assert status(stage_with_tokens, token()) == 200


@pytest.mark.parametrize("given", [
    token(exp=int(time.time()) - 1),
    token(exp=None),
    token(exp="tomorrow"),
    token(aud="endpoint:f"),
    token(aud=None),
    token(aud=["endpoint:e"]),
    token(iss="someone"),
    token(iss=None),
    token(ver=2),
    token(ver=4),
    token(ver=None),
    token(key="another key"),
    token(key=""),
    token({"alg": "none"}),
    token({"alg": "none"}).rsplit(".", 1)[0] + ".",
    token({"alg": "HS384"}, digest="sha384"),
    token({"alg": "HS512"}, digest="sha512"),
    token({"alg": "RS256"}),
    token({"alg": "hs256"}),
    token({"typ": "JWT"}),
    token({"alg": "HS256", "kid": "../../dev/null"}, key="x"),
    token({"alg": "HS256", "jwk": {"kty": "oct", "k": encoded(b"x")}}, key="x"),
    token() + ".",
    token() + "x",
    token().replace(".", "..", 1),
    ".".join(token().split(".")[:2]),
    "a.b.c",
    hashlib.sha256(KEY.encode()).hexdigest(),
    KEY,   # the endpoint is opened by tokens only
])
def test_what_is_no_token_of_the_endpoint_is_answered_as_none(
    stage_with_tokens: Stage, given: str
) -> None:
    assert status(stage_with_tokens, given) == 401


def test_a_new_version_ends_the_tokens_of_the_old_one(stage_with_tokens: Stage) -> None:
    old = token()
    stage_with_tokens.publish(endpoint(token_version=4))
    assert status(stage_with_tokens, old) == 401
    assert status(stage_with_tokens, token(ver=4)) == 200
