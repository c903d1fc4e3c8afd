from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from inferay.control.issuers import KEYS_MAX, Issuer, issuer_of, read_keys
from inferay.errors import InvalidInput
from inferay.serve.declared import AUDIENCE, ISSUER, KEYS

GIVEN = {ISSUER: "https://issuer/v2.0", AUDIENCE: "api://me", KEYS: "https://issuer/keys"}
ISSUER_OF_TEST = Issuer(*GIVEN.values())


def rsa_key(**fields: Any) -> dict[str, Any]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    return {**jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True), "kid": "r", **fields}


def ec_key(curve: ec.EllipticCurve) -> dict[str, Any]:
    key = ec.generate_private_key(curve).public_key()
    return {**jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True), "kid": "e"}


def read(*keys: dict[str, Any]) -> list[tuple[str, str]]:
    found = read_keys(json.dumps({"keys": keys}).encode(), ISSUER_OF_TEST)
    assert all("BEGIN PUBLIC KEY" in one.pem for one in found)
    return [(one.id, one.algorithm) for one in found]


def test_an_endpoint_names_an_issuer_with_three_properties_or_none() -> None:
    assert issuer_of({}, uses_keys=True) is None
    assert issuer_of(GIVEN, uses_keys=False) == ISSUER_OF_TEST
    with pytest.raises(InvalidInput, match="jwks_uri: missing"):
        issuer_of({name: GIVEN[name] for name in (ISSUER, AUDIENCE)}, uses_keys=False)
    with pytest.raises(InvalidInput, match="auth_mode: key takes no tokens"):
        issuer_of(GIVEN, uses_keys=True)


@pytest.mark.parametrize("uri", ["http://issuer/keys", "file:///etc/passwd", "issuer"])
def test_keys_come_over_https(uri: str) -> None:
    with pytest.raises(InvalidInput, match="expected https://HOST/PATH"):
        issuer_of(GIVEN | {KEYS: uri}, uses_keys=False)


@pytest.mark.parametrize("name", [ISSUER, AUDIENCE])
def test_what_would_be_a_rule_of_its_own_at_the_edge_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be said of a token"):
        issuer_of(GIVEN | {name: 'x" } or { true'}, uses_keys=False)


def test_keys_are_read_with_the_algorithm_that_they_say_or_that_fits_them() -> None:
    keys = [rsa_key(), rsa_key(alg="PS256"), ec_key(ec.SECP256R1()), ec_key(ec.SECP384R1())]
    assert read(*keys) == [("r", "RS256"), ("r", "PS256"), ("e", "ES256"), ("e", "ES384")]


def test_keys_that_the_edge_cannot_use_are_left_out() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "kid": "s", "alg": "HS256"}
    odd = [rsa_key(use="enc"), rsa_key(kid=None), rsa_key(kid='"; evil'), rsa_key(alg="none"),
           rsa_key(n="!"), ec_key(ec.SECP256K1()), secret]
    assert read(*odd, rsa_key(kid="good")) == [("good", "RS256")]
    with pytest.raises(InvalidInput, match="no key that tokens can be verified with"):
        read(*odd)
    assert len(read(*[rsa_key()] * (KEYS_MAX + 5))) == KEYS_MAX


@pytest.mark.parametrize("text", [b"", b"<html>", b"[]", b'{"keys": 3}', b'{"keys": [1]}', b"{}"])
def test_what_is_no_key_set_is_said(text: bytes) -> None:
    with pytest.raises(InvalidInput, match="holds no JSON Web Key Set"):
        read_keys(text, ISSUER_OF_TEST)
