"""A workspace with an endpoint under load, and the faults that it has to bear."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from inferay.config import Workspace
from inferay.processes import Process, read_json
from inferay.serve.edge.client import EdgeClient, EdgeState
from tests.edges import wait_until

#: Of an update on a loaded machine: Ray starts processes.
LIMIT_S = 180.0

SCORE = """
import json
import logging.config
import os
import time


def init():
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
    if os.environ.get("BREAK"):
        raise RuntimeError("this version is broken")


def run(data):
    time.sleep(float(os.environ.get("PAUSE_S", "0.03")))
    if os.environ.get("HANG"):
        time.sleep(3600)
    return {"sum": sum(json.loads(data)), "version": os.environ.get("VERSION", "1")}
"""

ENDPOINT = """
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineEndpoint.schema.json
name: soak
auth_mode: key
properties: {inferay.retry_sent_requests: "RETRIED"}
"""

DEPLOYMENT = """
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: blue
endpoint_name: soak
code_configuration: {code: src, scoring_script: score.py}
environment: {conda_file: {dependencies: [python=3.11]}}
instance_type: Standard_DS2_v2
instance_count: 2
request_settings: {max_concurrent_requests_per_instance: 32, request_timeout_ms: 5000}
"""


@dataclass
class Stage:
    """A user's folder, and a workspace of its own that is up."""

    folder: Path

    @property
    def workspace(self) -> Workspace:
        """The workspace."""
        return Workspace(self.folder / "home")

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the commands."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "INFERAY_"))}
        return {**kept, "INFERAY_HOME": str(self.workspace.home)}

    def prepare(self, *, is_retried: bool) -> None:
        """Write the user's files and bring the workspace up."""
        (self.folder / "src").mkdir(parents=True)
        (self.folder / "src" / "score.py").write_text(SCORE)
        text = ENDPOINT.replace("RETRIED", str(is_retried).lower())
        (self.folder / "endpoint.yml").write_text(text)
        (self.folder / "deployment.yml").write_text(DEPLOYMENT)
        self.inferay("up")

    def inferay(self, *arguments: str, fails: bool = False) -> str:
        """Run a command; return what it printed; fail if it does not do as expected."""
        done = subprocess.run(
            [str(Path(sys.executable).parent / "inferay"), *arguments], cwd=self.folder,
            env=self.environment, text=True, capture_output=True, timeout=LIMIT_S, check=False,
            stdin=subprocess.DEVNULL,
        )
        assert (done.returncode != 0) == fails, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr if fails else done.stdout

    def deploy(self, name: str, *settings: str, update: bool = False, fails: bool = False) -> str:
        """Create or update a deployment from the file, with settings of its own."""
        words = [word for one in settings for word in ("--set", one)]
        return self.inferay(
            "online-deployment", "update" if update else "create", "-f", "deployment.yml",
            "-n", name, "-e", "soak", *words, fails=fails,
        )

    def keys(self) -> dict[str, str]:
        """Return the endpoint's keys."""
        found: dict[str, str] = json.loads(self.inferay(
            "online-endpoint", "get-credentials", "-n", "soak", "-o", "json"
        ))
        return found

    @property
    def port(self) -> int:
        """The public port."""
        return int(str(read_json(self.workspace.run / "control.json")["url"]).rsplit(":", 1)[1])

    def edge(self) -> EdgeState:
        """Return what the edge says."""
        url = read_json(self.workspace.run / "edge.json")["url"]
        with contextlib.closing(
            EdgeClient(url, self.workspace.edge_secret.read_text().strip())
        ) as client:
            return client.state()

    def up(self, deployment: str) -> list[tuple[str, int]]:
        """Return the ids and ports of the replicas that take requests."""
        return [
            (one.id, one.port) for one in self.edge().replicas
            if one.deployment == deployment and one.is_up
        ]

    def wait_for_replicas(self, deployment: str, count: int) -> None:
        """Wait until there are exactly so many."""
        wait_until(lambda: len(self.up(deployment)) == count, f"{count} replicas", LIMIT_S)

    # Faults.

    def kill_replica(self) -> None:
        """Kill one of at least two replicas of blue, and wait for its successor."""
        before = self.up("blue")
        assert len(before) >= 2, before
        psutil.Process(listener(before[0][1])).kill()
        wait_until(lambda: before[0] not in self.up("blue"), "the replica to be gone", LIMIT_S)
        self.wait_for_replicas("blue", len(before))

    def kill_serve_controller(self) -> None:
        """Kill Serve's controller, and wait until another one runs."""
        before = {one.id for one in self.edge().replicas}
        pid = self.serve_controller()
        assert pid is not None
        psutil.Process(pid).kill()
        wait_until(lambda: self.serve_controller() not in (None, pid), "a new controller", LIMIT_S)
        # One that was just starting may be another, but what served goes on.
        assert before & {one.id for one in self.edge().replicas}
        self.wait_for_replicas("blue", 2)

    def kill_haproxy(self) -> None:
        """Kill HAProxy, and wait until another one answers."""
        pid = self.edge().haproxy["pid"]
        psutil.Process(pid).kill()
        wait_until(lambda: self._haproxy_pid() not in (None, pid), "a new HAProxy", LIMIT_S)

    def kill_control(self) -> None:
        """Kill the control plane, and wait until another one answers."""
        self._kill("control")

    def kill_edge_process(self) -> None:
        """Kill the edge process, and wait until another one answers."""
        self._kill("edge")

    def reload_haproxy(self) -> None:
        """Let a new HAProxy process take over."""
        self.process("edge").send_signal(signal.SIGHUP)

    def _kill(self, name: str) -> None:
        process = self.process(name)
        process.kill()

        def is_back() -> bool:
            found = read_json(self.workspace.run / "processes.json")[name]
            if found["pid"] == process.pid or Process(**found).find() is None:
                return False
            with contextlib.suppress(AssertionError, httpx.HTTPError):
                self.inferay("online-endpoint", "show", "-n", "soak")
                return True
            return False

        wait_until(is_back, f"a new {name}", LIMIT_S)

    def process(self, name: str) -> psutil.Process:
        """Return the process of a part: `control`, `edge` …"""
        found = Process(**read_json(self.workspace.run / "processes.json")[name]).find()
        assert found is not None
        return found

    def _haproxy_pid(self) -> int | None:
        with contextlib.suppress(Exception):   # the edge is at it
            pid: int | None = self.edge().haproxy["pid"]
            return pid
        return None

    def serve_controller(self) -> int | None:
        """Return the process of Serve's controller in this workspace's Ray."""
        temp_dir = read_json(self.workspace.run / "ray.json")["temp_dir"]
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                is_it = process.cmdline()[:1] == ["ray::ServeController"] or (
                    process.cmdline() and process.cmdline()[0].startswith("ray::ServeController")
                )
                if is_it and any(temp_dir in one.path for one in process.open_files()):
                    return process.pid
        return None


def listener(port: int) -> int:
    """Return the process that listens on a port."""
    for one in psutil.net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN and getattr(one.laddr, "port", 0) == port and one.pid:
            return one.pid
    raise AssertionError(f"nobody listens on {port}")
