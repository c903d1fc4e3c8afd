"""The edge's management API, as the control plane and local mode call it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from inferay.errors import InferayError, InvalidInput, NotAuthorized, Unavailable
from inferay.serve.routing import RoutingTable

#: A reload of HAProxy on a loaded machine takes seconds.
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class ReplicaState:
    """A replica that has announced itself.

    Attributes:
        is_up: Whether requests reach it: its health check passed.
        is_leaving: Whether it gets no new requests.
        in_flight: Requests on it, as the edge sees them.
        counters: What it says of itself.
        announced_s_ago: Since its last word.
    """

    id: str
    endpoint: str
    deployment: str
    revision: str
    host: str
    port: int
    is_up: bool
    is_leaving: bool
    in_flight: int
    counters: Mapping[str, Any] = field(default_factory=dict)
    announced_s_ago: float = 0.0


@dataclass(frozen=True)
class Failure:
    """Why a constructor of this revision failed; `error` as `InferayError.as_dict` has it."""

    endpoint: str
    deployment: str
    revision: str
    replica: str
    error: Mapping[str, Any]


@dataclass(frozen=True)
class EdgeState:
    """What an edge says of itself.

    Attributes:
        table_digest: `digest_of_table` of the table that it carries out.
        haproxy: Its `pid`, and how often it was started again.
    """

    table_digest: str
    replicas: tuple[ReplicaState, ...]
    failures: tuple[Failure, ...]
    haproxy: Mapping[str, Any]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the state that `GET /state` answered."""
        return cls(
            values["table_digest"],
            tuple(ReplicaState(**one) for one in values["replicas"]),
            tuple(Failure(**one) for one in values["failures"]),
            values["haproxy"],
        )


class EdgeClient:
    """One edge; safe to use from several threads.

    Args:
        url: Of its management API.
        admin_secret: What it was started with.

    Raises:
        Unavailable: Every method: it does not answer, or HAProxy does not.
    """

    def __init__(self, url: str, admin_secret: str) -> None:
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {admin_secret}"},
            timeout=TIMEOUT_S, trust_env=False,
        )

    def publish(self, table: RoutingTable) -> None:
        """Make the edge carry out this table; returns when it does; idempotent.

        Raises:
            InvalidInput: A name in it cannot be one.
        """
        self._ask("PUT", "/table", table.to_dict())

    def state(self) -> EdgeState:
        """Return what is there."""
        return EdgeState.from_dict(self._ask("GET", "/state"))

    def reload(self) -> None:
        """Let a new HAProxy process take over, with nothing refused or dropped."""
        self._ask("POST", "/reload")

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise Unavailable(f"the edge does not answer: {error}", code="EdgeUnavailable") from (
                error
            )
        if answer.status_code == 200:
            found: dict[str, Any] = answer.json()
            return found
        said = answer.json().get("error", {}).get("message", answer.text[:500])
        kinds: dict[int, type[InferayError]] = {
            400: InvalidInput, 401: NotAuthorized, 503: Unavailable,
        }
        raise kinds.get(answer.status_code, InferayError)(f"the edge: {said}")
