"""Issuers of tokens outside that an endpoint trusts: their public keys, fetched and kept fresh.

An endpoint names one in its `properties`; its keys come as a JSON Web Key Set over https. They are
in the endpoint's row, so that the routing table needs no network. An issuer that does not answer
changes nothing.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives import serialization
from sqlalchemy import select
from sqlalchemy.orm import Session

from inferay.control.context import Context
from inferay.control.tables import Endpoint
from inferay.errors import InferayError, InvalidInput, Unavailable
from inferay.serve.declared import AUDIENCE, ISSUER, ISSUER_PROPERTIES, KEYS
from inferay.serve.edge.edge import ALGORITHMS, check_names
from inferay.serve.routing import EndpointRoute, RoutingTable, TrustedKey

log = logging.getLogger(__name__)

#: Issuers announce new keys hours before they sign with them, and end old ones within minutes.
REFRESH_S = 300.0

TIMEOUT_S = 5.0

#: Large issuers have a dozen keys, a few kilobytes each.
SET_BYTES_MAX = 256 << 10
KEYS_MAX = 32

#: What a key without an `alg` signs with, by its type and curve.
_ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("EC", "P-384"): "ES384"}


@dataclass(frozen=True)
class Issuer:
    """Whose tokens open an endpoint, besides its own."""

    name: str
    audience: str
    uri: str


def issuer_of(properties: Mapping[str, str], *, uses_keys: bool) -> Issuer | None:
    """Return the issuer that an endpoint's properties name, if they do.

    Raises:
        InvalidInput: They name one by halves, or the endpoint is opened by keys.
    """
    given = {name: properties[name] for name in ISSUER_PROPERTIES if properties.get(name)}
    if not given:
        return None
    if len(given) < 3:
        missing = next(name for name in ISSUER_PROPERTIES if name not in given)
        raise InvalidInput(
            f"properties: {missing}: missing; {ISSUER}, {AUDIENCE} and {KEYS} belong together",
            target="/properties/properties",
        )
    if uses_keys:
        raise InvalidInput(
            f"properties: {ISSUER}: given, but auth_mode: key takes no tokens; expected auth_mode: "
            "aad_token",
            target="/properties/authMode",
        )
    found = Issuer(given[ISSUER], given[AUDIENCE], given[KEYS])
    parts = urlsplit(found.uri)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise InvalidInput(
            f"properties: {KEYS}: expected https://HOST/PATH, got '{found.uri[:200]}'",
            target="/properties/properties",
        )
    _check(TrustedKey(found.name, found.audience, "k", "RS256", ""))
    return found


def read_keys(text: bytes, issuer: Issuer) -> list[TrustedKey]:
    """Return the keys of a JSON Web Key Set that tokens can be verified with at the edge.

    Raises:
        InvalidInput: It is no such set, or has none.
    """
    try:
        given = json.loads(text)["keys"]
        found = [_key(one, issuer) for one in given[:KEYS_MAX]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidInput(f"{issuer.uri} holds no JSON Web Key Set", target=KEYS) from None
    keys = [one for one in found if one is not None]
    if not keys:
        raise InvalidInput(
            f"{issuer.uri} holds no key that tokens can be verified with: expected RSA or EC keys "
            "with a kid",
            target=KEYS,
        )
    return keys


def fetch_keys(issuer: Issuer) -> list[TrustedKey]:
    """Return an issuer's keys of now; blocks.

    Raises:
        Unavailable: It does not answer.
        InvalidInput: It answers something else.
    """
    try:
        with httpx.stream("GET", issuer.uri, timeout=TIMEOUT_S) as answer:
            answer.raise_for_status()
            text = b""
            for chunk in answer.iter_bytes():
                text += chunk
                if len(text) > SET_BYTES_MAX:
                    raise InvalidInput(f"{issuer.uri} is larger than {SET_BYTES_MAX} bytes")
    except httpx.HTTPError as error:
        raise Unavailable(
            f"the keys of {issuer.name} cannot be fetched from {issuer.uri}: {error}",
            code="IssuerUnavailable", target=KEYS,
        ) from None
    return read_keys(text, issuer)


def refresh(context: Context, name: str) -> None:
    """Bring an endpoint's row to its issuer's keys of now; blocks.

    Raises:
        Unavailable: The issuer does not answer; the keys stay as they were.
        InvalidInput: It answers something else.
    """
    with context.database.read() as session:
        issuer = _issuer_of_row(session, name)
    keys = [asdict(one) for one in fetch_keys(issuer)] if issuer else []
    with context.database.write() as session:
        row = session.get(Endpoint, name)
        if row is not None and _issuer_of_row(session, name) == issuer:
            row.trusted_keys = keys


class Issuers:
    """Refreshes the keys of all issuers, on a thread that may block.

    Args:
        context: The control plane's.
        clock: Monotonic seconds.
    """

    def __init__(self, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock
        self._refreshed_s = -math.inf

    def turn(self) -> None:
        """Refresh them if it is time."""
        if self._clock() - self._refreshed_s < REFRESH_S:
            return
        self._refreshed_s = self._clock()
        with self._context.database.read() as session:
            rows = session.scalars(select(Endpoint).where(Endpoint.kind == "online"))
            names = [row.name for row in rows if KEYS in row.properties.get("properties", {})]
        for name in names:
            try:
                refresh(self._context, name)
            except InferayError as error:
                log.warning("endpoint %s: %s", name, error.message)


def _issuer_of_row(session: Session, name: str) -> Issuer | None:
    row = session.get(Endpoint, name)
    return None if row is None else issuer_of(
        row.properties.get("properties", {}), uses_keys=False
    )


def _key(given: Mapping[str, Any], issuer: Issuer) -> TrustedKey | None:
    """Return a key, or None for one that is not for signatures, or that the edge cannot use."""
    algorithm = given.get("alg") or _ALGORITHMS.get((given.get("kty", ""), given.get("crv")))
    if given.get("use", "sig") != "sig" or not given.get("kid") or algorithm not in ALGORITHMS:
        return None
    try:
        public = jwt.PyJWK(dict(given), algorithm=algorithm).key
        pem = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()
        found = TrustedKey(issuer.name, issuer.audience, str(given["kid"]), algorithm, pem)
        _check(found)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, InvalidInput):
        return None
    return found


def _check(key: TrustedKey) -> None:
    """Check that the edge takes the key: one that it refuses would hold up every other change."""
    check_names(RoutingTable((EndpointRoute("e", trusted_keys=(key,)),)))


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
