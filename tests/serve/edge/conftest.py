from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
import uvicorn

from inferay.serve.routing import (
    DeploymentRoute,
    EndpointRoute,
    RoutingTable,
    TrustedKey,
    digest_of,
)
from tests.edges import RunningEdge, started, wait_until

KEY = "the-primary-key"


class Container:
    """What a replica is for the edge: a port that answers as the request's headers want."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[dict[str, Any]] = []
        self.held = threading.Event()
        self.held.set()
        self.has_ended = False
        config = uvicorn.Config(
            self, host="127.0.0.1", port=0, log_config=None, lifespan="off",
            timeout_keep_alive=75,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.has_ended = True
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        import asyncio

        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        if scope["path"] != "/":
            self.seen.append({"path": scope["path"], "headers": headers, "body": body})
            while not self.held.is_set():
                await asyncio.sleep(0.01)
        extra = [(b"x-inferay-reason", headers["reason"].encode())] if "reason" in headers else []
        await send({"type": "http.response.start", "status": int(headers.get("want", 200)),
                    "headers": [(b"content-type", b"application/json"), *extra]})
        answer = {"by": self.name, "path": scope["path"], "bytes": len(body)}
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


@dataclass
class Stage:
    """An edge with containers behind it."""

    edge: RunningEdge
    containers: dict[str, Container] = field(default_factory=dict)
    bearers: dict[str, str] = field(default_factory=dict)

    def add(self, id: str, endpoint: str, deployment: str, revision: str = "1") -> Container:
        """Start a container and register it; one that an earlier test left up is as good."""
        if id in self.containers:
            return self.containers[id]
        self.containers[id] = container = Container(id)
        self.edge.register(endpoint, deployment, revision, id, container.port)
        self.bearers[id] = "Bearer " + self.edge.credential(endpoint, deployment, revision)
        return container

    def leave(self, id: str) -> bool:
        """Ask the edge to let a replica go; return whether it has."""
        answer = httpx.post(
            f"{self.edge.management}/replicas/{id}/leave", trust_env=False, timeout=30,
            headers={"authorization": self.bearers[id]},
        )
        return bool(answer.json()["is_gone"])

    def remove(self, id: str) -> None:
        """Let a replica go, and end its container."""
        wait_until(partial(self.leave, id), f"replica {id} to be gone")
        self.containers.pop(id).stop()

    def reset(self) -> None:
        """Make it as new for the next test, but for the containers that are up."""
        self.publish()
        for id, container in list(self.containers.items()):
            container.held.set()
            container.seen.clear()
            is_whole = not container.has_ended and self.edge.replica(id) is not None
            if not is_whole or id not in ("b1", "g1"):
                self.remove(id)

    def publish(self, *endpoints: EndpointRoute) -> None:
        with contextlib.closing(self.edge.client()) as client:
            client.publish(RoutingTable(endpoints))


def endpoint(
    name: str = "e", key: str = KEY, *, traffic: dict[str, int] | None = None,
    mirror: dict[str, int] | None = None, deployments: dict[str, str] | None = None,
    requests_max: int = 64, timeout_s: float = 5.0, is_retried: bool = False,
    token_version: int | None = None, trusted_keys: tuple[TrustedKey, ...] = (),
) -> EndpointRoute:
    """Return a route; deployments are names with their revisions."""
    return EndpointRoute(
        name, (digest_of(key),) if token_version is None else (), token_version,
        {"blue": 100} if traffic is None else traffic, mirror or {},
        tuple(DeploymentRoute(one, revision, requests_max, timeout_s, is_retried)
              for one, revision in (deployments or {"blue": "1"}).items()),
        trusted_keys,
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with started(tmp_path_factory.mktemp("edge")) as edge:
        yield edge


@pytest.fixture(scope="module")
def whole_stage(running: RunningEdge) -> Iterator[Stage]:
    found = Stage(running)
    yield found
    found.reset()
    for id in list(found.containers):
        found.remove(id)


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    yield whole_stage
    whole_stage.reset()


@pytest.fixture
def auth() -> dict[str, str]:
    return {"authorization": f"Bearer {KEY}"}
