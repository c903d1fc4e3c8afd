"""A workspace with a real edge and real inference servers, and plain processes for Ray Serve."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from inferay import Client
from inferay.control.app import create_app
from inferay.control.reconcile import Reconciler
from inferay.engine.ray_dashboard import RayAddress
from inferay.processes import free_ports
from inferay.serve.applications import ApplicationState
from inferay.serve.replica_spec import ApplicationSpec
from tests.cli.conftest import Served
from tests.control.conftest import Plane, ThreadJobs
from tests.edges import RunningEdge, started

SCORE = """
import json, os, time
from pathlib import Path

def init():
    global version
    version = os.environ.get("VERSION", "1")
    if "BREAK" in os.environ:
        raise RuntimeError("no weights")
    while Path(os.environ.get("WAIT_WHILE", "no such file")).exists():
        time.sleep(0.05)
    print("version", version, "is up")

def run(data):
    asked = json.loads(data)
    if asked == "wait":
        while not Path("GO").exists():
            time.sleep(0.01)
    if asked == "slow":
        time.sleep(1)
    print("asked for", asked)
    return {"version": version, "sum": sum(asked)}
"""

ENDPOINT = """\
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineEndpoint.schema.json
name: sums
auth_mode: key
"""

DEPLOYMENT = """\
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: blue
endpoint_name: sums
code_configuration:
  code: src
  scoring_script: score.py
instance_count: 1
request_settings:
  max_queue_wait_ms: 30000
  request_timeout_ms: 60000
"""


class ProcessServe:
    """Ray Serve's REST API; a replica is a process of ours that registers with the edge."""

    def __init__(self, folder: Path) -> None:
        self.address = RayAddress("", "http://head-1", None)
        self._folder = folder
        self._ids = itertools.count()
        self._running: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._ended: list[subprocess.Popen[bytes]] = []

    def put(self, applications: Iterable[ApplicationSpec]) -> None:
        wanted = {one.name: one for one in applications}
        for name in list(self._running):
            self._end(name, wanted[name].instances if name in wanted else 0)
        for name, one in wanted.items():
            running = self._running.setdefault(name, [])
            while len(running) < one.instances:
                running.append(self._start(one))

    def status(self, max_age_s: float = 0.0) -> dict[str, ApplicationState]:
        return {name: ApplicationState("DEPLOYING", "", 0) for name in list(self._running)}

    def close(self) -> None:
        """End every replica."""
        self.put([])
        for one in self._ended:
            one.wait(30)

    def _start(self, application: ApplicationSpec) -> subprocess.Popen[bytes]:
        id = f"r{next(self._ids)}"
        path = self._folder / f"{id}.json"
        path.write_text(json.dumps({
            "replica": application.spec.to_dict(), "id": id, "host": "127.0.0.1", "port": 0,
            "state": str(self._folder / f"{id}.state"),
        }))
        with (self._folder / f"{id}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "inferay.serve.server", str(path)], cwd=self._folder,
                stdout=log, stderr=log,
            )

    def _end(self, name: str, left: int) -> None:
        running = self._running[name]
        for one in running[left:]:
            one.terminate()
            self._ended.append(one)
        del running[left:]
        if not left:
            del self._running[name]


@dataclass
class ServedOnline(Served):
    """As the workspace of `inferay up`: the edge on the public port, the control plane behind it.

    Attributes:
        client: A client of the control plane.
        edge: The edge.
        folder: Where the replicas run.
    """

    client: Client
    edge: RunningEdge
    folder: Path


@contextlib.contextmanager
def served_online(folder: Path) -> Iterator[ServedOnline]:
    """Serve a control plane, an edge before it, and what is deployed."""
    [port] = free_ports(1)
    with started(folder, control_port=port) as edge:
        replicas = folder / "replicas"
        replicas.mkdir()
        serve = ProcessServe(replicas)
        plane = Plane(folder / "home", ThreadJobs())
        context, workspace, config = plane.context, plane.workspace, edge.config
        client = edge.client()
        context.serve = lambda: serve   # type: ignore[assignment,return-value]
        context.edge, context.url = lambda: client, edge.url
        workspace.registration_key.write_bytes(Path(config.registration_key).read_bytes())
        workspace.token_key.write_text(Path(str(config.token_key)).read_text())
        (workspace.run / "edge.json").write_text(json.dumps({"url": edge.management}))
        (workspace.run / "control.json").write_text(json.dumps({"url": edge.url}))
        reconciler = Reconciler(context)
        server = uvicorn.Server(uvicorn.Config(
            create_app(context), host="127.0.0.1", port=port, log_config=None,
            timeout_graceful_shutdown=2,
        ))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            thread.join(0.01)
        reconciler.start()
        try:
            with Client(edge.url, workspace.admin_token.read_text(), edge.ca) as face:
                yield ServedOnline(plane, edge.url, face, edge, replicas)
        finally:
            reconciler.stop()
            serve.close()
            server.should_exit = True
            thread.join()
            client.close()
            plane.close()


def write_project(folder: Path) -> None:
    """Write a user's folder: YAML and code."""
    (folder / "src").mkdir()
    (folder / "src" / "score.py").write_text(SCORE)
    (folder / "endpoint.yml").write_text(ENDPOINT)
    (folder / "blue.yml").write_text(DEPLOYMENT)
    (folder / "green.yml").write_text(
        DEPLOYMENT.replace("name: blue", "name: green").replace("60000", "300")
        + "environment_variables: {VERSION: '2'}\n"
    )
    (folder / "sample.json").write_text("[1, 2, 3]")
