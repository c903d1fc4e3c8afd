"""Tokens of an endpoint, verified by the edge: what is not exactly one is answered as none."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from inferay.errors import InvalidInput
from inferay.serve.routing import TrustedKey
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


def private_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def trusted(key: ec.EllipticCurvePrivateKey, id: str = "k1") -> TrustedKey:
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return TrustedKey("https://issuer.example/v2.0", "api://scoring", id, "ES256", pem.decode())


def outside_token(key: ec.EllipticCurvePrivateKey, id: str = "k1", **claims: Any) -> str:
    """Return a token of an issuer outside with these claims instead; None takes one away."""
    payload = {"iss": "https://issuer.example/v2.0", "aud": "api://scoring",
               "exp": int(time.time()) + 60} | claims
    payload = {name: one for name, one in payload.items() if one is not None}
    signed = f"{encoded({'alg': 'ES256', 'kid': id})}.{encoded(payload)}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def test_a_token_of_an_issuer_that_the_endpoint_trusts_opens_it_and_no_other(
    stage: Stage,
) -> None:
    stage.add("b1", "e", "blue")
    key, other = private_key(), private_key()
    stage.publish(
        endpoint(token_version=1, trusted_keys=(trusted(key), trusted(other, "k2"))),
        endpoint("f", token_version=1),
    )
    stage.edge.wait_up("b1")
    later = int(time.time()) + 3600
    assert status(stage, outside_token(key)) == 200
    assert status(stage, outside_token(other, "k2")) == 200
    for given in (
        outside_token(key, "k2"), outside_token(key, "k3"), outside_token(private_key()),
        outside_token(key, aud="api://other"), outside_token(key, iss="https://other"),
        outside_token(key, exp=1), outside_token(key, exp=None), outside_token(key, nbf=later),
        # The public key is no secret: as the key of an HMAC it opens nothing.
        token({"alg": "HS256", "kid": "k1"}, key=trusted(key).pem,
              iss="https://issuer.example/v2.0", aud="api://scoring"),
    ):
        assert status(stage, given) == 401
    with stage.edge.http() as http:
        answer = http.post("/endpoints/f/score", headers={
            "authorization": f"Bearer {outside_token(key)}",
        })
    assert answer.status_code == 401


def test_the_next_key_of_an_issuer_is_loaded_and_the_last_one_ends(stage: Stage) -> None:
    stage.add("b1", "e", "blue")
    old, new = private_key(), private_key()
    stage.publish(endpoint(token_version=1, trusted_keys=(trusted(old),)))
    stage.edge.wait_up("b1")
    assert status(stage, outside_token(old)) == 200
    stage.publish(endpoint(token_version=1, trusted_keys=(trusted(new, "k2"),)))
    assert status(stage, outside_token(old)) == 401
    assert status(stage, outside_token(new, "k2")) == 200


def test_what_could_change_a_rule_is_no_issuer(stage: Stage) -> None:
    for wrong in ('x" -m found }', "a b", "$HOME", "a\nb", "a\\"):
        with pytest.raises(InvalidInput, match="cannot be said of a token"):
            stage.publish(endpoint(token_version=1, trusted_keys=(
                replace(trusted(private_key()), issuer=wrong),
            )))
