"""The routing table of the edge: which requests reach which replicas, as one pure value.

The control plane (or local mode) computes it from what is declared; the edge carries it out. It
knows no key, only digests, and no replica: those register with the edge themselves.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class DeploymentRoute:
    """A deployment as the edge sees it.

    Attributes:
        name: Of the deployment.
        revision: Only replicas of this revision take its requests: another one switches them all.
        requests_max: Requests at once on one replica, running and waiting; more are answered 429.
        timeout_s: After this the edge gives up on a replica: the longest request and its wait.
        is_retried: Whether a request that was already sent to a replica that died is sent, once,
            to another one (`run()` may then run twice).
    """

    name: str
    revision: str
    requests_max: int
    timeout_s: float
    is_retried: bool = False


@dataclass(frozen=True)
class TrustedKey:
    """A public key of an issuer of tokens outside, and what its tokens have to say.

    Attributes:
        issuer: Their `iss`.
        audience: Their `aud`.
        id: Their `kid`.
        algorithm: Their `alg`, such as RS256; no other is taken with this key.
        pem: The public key.
    """

    issuer: str
    audience: str
    id: str
    algorithm: str
    pem: str

    @property
    def digest(self) -> str:
        """Tells it from every other."""
        parts = (self.issuer, self.audience, self.id, self.algorithm, self.pem)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class EndpointRoute:
    """An endpoint's credentials and rule.

    Attributes:
        name: Of the endpoint.
        key_digests: sha256 (hex) of each key that opens it; empty where tokens do.
        token_version: The `ver` that its tokens must have; None where keys open it.
        traffic: Percent by deployment; 100 in sum, or 0.
        mirror: Percent of the requests that a deployment gets a copy of.
        deployments: What its requests may reach, at 0 % also.
        trusted_keys: Of issuers outside, whose tokens open it as well where tokens do.
    """

    name: str
    key_digests: tuple[str, ...] = ()
    token_version: int | None = None
    traffic: Mapping[str, int] = field(default_factory=dict)
    mirror: Mapping[str, int] = field(default_factory=dict)
    deployments: tuple[DeploymentRoute, ...] = ()
    trusted_keys: tuple[TrustedKey, ...] = ()


@dataclass(frozen=True)
class RoutingTable:
    """All endpoints that the edge serves, by name."""

    endpoints: tuple[EndpointRoute, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes, as JSON can carry it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the table that `to_dict` wrote."""
        return cls(tuple(
            EndpointRoute(**one | {
                "key_digests": tuple(one["key_digests"]),
                "trusted_keys": tuple(TrustedKey(**each) for each in one["trusted_keys"]),
                "deployments": tuple(DeploymentRoute(**each) for each in one["deployments"]),
            })
            for one in values["endpoints"]
        ))


def digest_of(key: str) -> str:
    """Return what the edge knows of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def digest_of_table(table: RoutingTable) -> str:
    """Return by what two tables are told apart."""
    text = json.dumps(table.to_dict(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def credential(registration_key: bytes, endpoint: str, deployment: str, revision: str) -> str:
    """Return what a replica of this revision, and of no other, registers with."""
    message = "\0".join((endpoint, deployment, revision)).encode()
    return hmac.new(registration_key, message, hashlib.sha256).hexdigest()
