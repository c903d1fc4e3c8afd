"""Ours: the edge with TLS and keys, and replicas that are registered with it.

The replicas are plain processes: the same server as in a replica on Ray Serve, whose requests do
not pass through Ray either.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import models
from benchmarks.serving.load import Target
from benchmarks.serving.processes import process
from inferay.engine.scoring.flavors import MLMODEL
from inferay.serve.replica_spec import ReplicaSpec
from inferay.serve.routing import DeploymentRoute, EndpointRoute, RoutingTable, digest_of
from inferay.serve.server.limits import Limits
from inferay.serve.server.spec import ServerSpec
from tests.edges import RunningEdge, started

#: At least as many as there are connections.
LIMITS = Limits(concurrent_requests_max=64, queue_wait_s=5.0, request_timeout_s=30.0)

DEPLOYMENTS = ("blue", "green")

MODEL_SCRIPT = """
import json
from benchmarks.serving import models

def init():
    global model
    model = models.load({name!r})

def run(data):
    return model(json.loads(data))
"""

SIZE_SCRIPT = """
def init():
    pass

def run(data):
    return len(data)
"""

SCRIPTS = {**{name: MODEL_SCRIPT.format(name=name) for name in models.ANSWERS}, "size": SIZE_SCRIPT}


@dataclass
class Ours:
    """An edge and replicas, of deployments `blue`, which answers, and `green`, which shadows."""

    edge: RunningEdge
    endpoints: Sequence[str]
    key: str
    pids: dict[str, int]

    def publish(self, mirror_percent: int) -> None:
        """Mirror so many of the requests to green, from now on."""
        table = RoutingTable(tuple(
            EndpointRoute(
                name, (digest_of(self.key),), traffic={"blue": 100},
                mirror={"green": mirror_percent} if mirror_percent else {},
                deployments=tuple(
                    DeploymentRoute(
                        one, "1", LIMITS.concurrent_requests_max + LIMITS.waiting_max,
                        LIMITS.request_timeout_s + LIMITS.queue_wait_s,
                    )
                    for one in DEPLOYMENTS
                ),
            )
            for name in self.endpoints
        ))
        with contextlib.closing(self.edge.client()) as client:
            client.publish(table)

    def target(
        self, name: str, body: bytes, expected: object, *, path: str = "score"
    ) -> Target:
        """Return an endpoint as a target; it answers as expected, if that is known."""
        target = Target(
            "inferay", f"{self.edge.url}/endpoints/{name}/{path}", body,
            {"Authorization": f"Bearer {self.key}"}, expected,
        )
        with self.edge.http() as client:
            found = client.post(target.url, content=body, headers=target.headers)
        if found.status_code != 200 or expected not in (None, found.json()):
            raise RuntimeError(f"{name} answers {found.status_code} {found.text[:300]}")
        return target


@contextlib.contextmanager
def serving(
    folder: Path, scripts: Mapping[str, str | Path], *, instances: int = 1
) -> Iterator[Ours]:
    """Run an edge, and replicas for each script; endpoints are called after the scripts.

    Args:
        folder: Takes code, logs and pairs.
        scripts: By name: the text of one, or the folder of an MLflow model or of a Triton
            repository.
        instances: Of the deployment that answers; the one that shadows has one.
    """
    with contextlib.ExitStack() as stack:
        edge = stack.enter_context(started(folder))
        ours = Ours(edge, list(scripts), secrets.token_urlsafe(24), {})
        for name, script in scripts.items():
            for number, deployment in enumerate(["green", *["blue"] * instances]):
                id = f"{name}-{deployment}-{number}"
                ours.pids[id] = stack.enter_context(
                    replica(edge, folder, name, deployment, script, id)
                )
        ours.publish(0)
        edge.wait_up(*ours.pids)
        yield ours


@contextlib.contextmanager
def replica(
    edge: RunningEdge, folder: Path, endpoint: str, deployment: str, script: str | Path, id: str
) -> Iterator[int]:
    """Start a replica of this id; give its process's id."""
    code = folder / id
    code.mkdir()
    name = f"{endpoint}-{deployment}"
    if isinstance(script, Path):
        flavor = "mlflow" if (script / MLMODEL).exists() else "triton"
        server = ServerSpec(name, "1", "", "", model=str(script), flavor=flavor, limits=LIMITS)
    else:
        (code / "score.py").write_text(script)
        server = ServerSpec(name, "1", str(code), "score.py", limits=LIMITS)
    spec = ReplicaSpec(
        server, endpoint, deployment, "1",
        edge_url=edge.management, credential=edge.credential(endpoint, deployment, "1"),
        log_dir=str(folder / "logs"), pairs_dir=str(folder / "pairs" / endpoint),
    )
    (code / "spec.json").write_text(json.dumps({
        "replica": spec.to_dict(), "id": id, "host": "127.0.0.1", "port": 0,
        "state": str(code / "state.json"),
    }))
    command = [sys.executable, "-m", "inferay.serve.server", str(code / "spec.json")]
    with process(command, folder / "replicas.log") as running:
        yield running.pid
