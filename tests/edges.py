"""Edge processes with real HAProxy, for tests."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from inferay.config import Workspace
from inferay.processes import free_ports
from inferay.serve.edge.client import EdgeClient, EdgeState, ReplicaState
from inferay.serve.edge.config import EdgeConfig
from inferay.serve.routing import credential
from inferay.tls import ensure_tls

START_S = 30.0
TOKEN_KEY = "a-key-of-tokens-for-tests-0123456789"


def wait_until(is_so: Callable[[], Any], what: str, limit_s: float = 20.0) -> None:
    """Wait until it is so; fail, saying what was waited for, when it takes too long."""
    until_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < until_s, f"waited {limit_s:g} s for {what}"
        time.sleep(0.02)


@dataclass
class RunningEdge:
    """An edge process and what it was told."""

    config: EdgeConfig
    folder: Path
    ca: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """The public address."""
        return f"https://127.0.0.1:{self.config.port}"

    @property
    def management(self) -> str:
        """Where replicas register."""
        return f"http://127.0.0.1:{self.config.management_port}"

    def client(self) -> EdgeClient:
        """Return a client of its management API."""
        return EdgeClient(self.management, Path(self.config.admin_secret).read_text())

    def http(self) -> httpx.Client:
        """Return a client of the public port."""
        return httpx.Client(
            base_url=self.url, verify=ssl.create_default_context(cafile=str(self.ca)),
            trust_env=False, timeout=30,
        )

    def credential(self, endpoint: str, deployment: str, revision: str) -> str:
        """Return what a replica of this revision registers with."""
        key = Path(self.config.registration_key).read_bytes()
        return credential(key, endpoint, deployment, revision)

    def register(
        self, endpoint: str, deployment: str, revision: str, id: str, port: int
    ) -> dict[str, Any]:
        """Announce a replica on this port of loopback, as it would itself."""
        answer = httpx.post(
            f"{self.management}/replicas", trust_env=False, timeout=30,
            headers={"authorization": "Bearer " + self.credential(
                endpoint, deployment, revision
            )},
            json={"id": id, "endpoint": endpoint, "deployment": deployment,
                  "revision": revision, "host": "127.0.0.1", "port": port,
                  "requests_max": 2, "counters": {}},
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def replica(self, id: str) -> ReplicaState | None:
        """Return a replica as the edge sees it."""
        with contextlib.closing(self.client()) as client:
            return next((one for one in client.state().replicas if one.id == id), None)

    def wait_up(self, *ids: str) -> None:
        """Wait until these replicas take requests."""
        def are_up() -> bool:
            with contextlib.closing(self.client()) as client:
                found = {one.id for one in client.state().replicas if one.is_up}
            return set(ids) <= found

        wait_until(are_up, f"replicas {ids}")

    def state(self) -> EdgeState:
        """Return its state."""
        with contextlib.closing(self.client()) as client:
            return client.state()

    def start(self) -> None:
        """Start the process and wait until it answers."""
        with (self.folder / "edge.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inferay.serve.edge", str(self.folder / "config.json")],
                stdout=log, stderr=log,
            )
        wait_until(self._answers, "the edge process", START_S)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the process with this signal; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(START_S)

    def log(self) -> str:
        """Return what it and HAProxy printed."""
        paths = (self.folder / "edge.log", self.folder / "edge" / "haproxy.log")
        return "\n".join(path.read_text() for path in paths if path.exists())

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            return httpx.get(f"{self.management}/state", trust_env=False).status_code == 401
        except httpx.HTTPError:
            return False


@contextlib.contextmanager
def started(folder: Path, *, control_port: int | None = None) -> Iterator[RunningEdge]:
    """Run an edge in the folder; end it and its HAProxy by id."""
    workspace = Workspace(folder / "home")
    for one in (workspace.home, workspace.secrets, workspace.tls, folder / "edge"):
        one.mkdir(parents=True, exist_ok=True)
    tls = ensure_tls(workspace, "127.0.0.1")
    for name in ("admin", "registration"):
        (folder / name).write_text(secrets.token_urlsafe(32))
    (folder / "token").write_text(TOKEN_KEY)
    port, management_port, mirror_port = free_ports(3)
    config = EdgeConfig(
        folder=str(folder / "edge"), host="127.0.0.1", port=port,
        certificate=str(tls.certificate), key=str(tls.key), management_host="127.0.0.1",
        management_port=management_port, mirror_port=mirror_port,
        admin_secret=str(folder / "admin"), registration_key=str(folder / "registration"),
        token_key=str(folder / "token"), control_port=control_port,
        haproxy=os.environ.get("TEST_HAPROXY"),   # the system's, to see that it does as well
    )
    config.write(folder / "config.json")
    edge = RunningEdge(config, folder, workspace.ca_certificate, process=None)   # type: ignore[arg-type]
    try:
        edge.start()
        yield edge
    finally:
        haproxy = _haproxy_of(folder / "edge")
        if edge.process is not None and edge.process.poll() is None:
            edge.end()
        for process in haproxy:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _haproxy_of(folder: Path) -> list[psutil.Process]:
    """Return the HAProxy processes with a configuration in the folder."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in " ".join(one.cmdline()) and one.pid != os.getpid():
                found.append(one)
    return found
