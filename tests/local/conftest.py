from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferay.cli.main import run
from inferay.config import Workspace
from inferay.engine.resources import OnlineEndpoint
from inferay.local import LocalClient
from inferay.local.state import Store

KEPT = "kept"

SCORE = """\
import json, os

def init():
    print("init of version 1")

def run(data):
    return {"version": 1, "got": json.loads(data)}
"""

DEPLOYMENT = """\
name: {name}
endpoint_name: {endpoint}
code_configuration:
  code: ./{name}
  scoring_script: score.py
request_settings:
  max_concurrent_requests_per_instance: 4
  max_queue_wait_ms: 5000
  request_timeout_ms: 60000
"""


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Local:
    """A user's folder, the commands typed in it, and local mode's public port."""

    def __init__(self, home: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = Workspace(home)
        self.store = Store(Workspace(home / "local"))
        self.folder = folder
        self._capsys = capsys

    def __call__(self, words: str, *more: str) -> Said:
        """Run `inferay WORDS --local`."""
        self._capsys.readouterr()
        code = run([*words.split(), *more, "--local"])
        captured = self._capsys.readouterr()
        return Said(code, captured.out, captured.err)

    def good(self, words: str, *more: str) -> Said:
        """Run a command that succeeds."""
        said = self(words, *more)
        assert said.code == 0, said.err
        return said

    def endpoint(self, name: str) -> str:
        """Declare an endpoint; return its primary key."""
        self.good(f"online-endpoint create -n {name}")
        return str(self.good(f"online-endpoint get-credentials -n {name}").json["primaryKey"])

    def write(self, endpoint: str, name: str, score: str = SCORE, more: str = "") -> None:
        """Write a deployment's file and its code."""
        (self.folder / name).mkdir(exist_ok=True)
        (self.folder / name / "score.py").write_text(score)
        text = DEPLOYMENT.format(endpoint=endpoint, name=name) + more
        (self.folder / f"{name}.yml").write_text(text)

    def invoke(self, endpoint: str, value: object = 1, more: str = "") -> Said:
        """Score a request over the command line."""
        (self.folder / "request.json").write_text(json.dumps(value))
        return self(f"online-endpoint invoke -n {endpoint} -r request.json {more}")

    def http(self) -> httpx.Client:
        """Return a client of the public port."""
        ws = self.store.workspace
        port = json.loads((ws.edge / "config.json").read_text())["port"]
        return httpx.Client(
            base_url=f"https://127.0.0.1:{port}", trust_env=False, timeout=30,
            verify=ssl.create_default_context(cafile=str(ws.ca_certificate)),
        )

    def end(self) -> None:
        """Delete whatever is there."""
        for name in list(self.store.read().endpoints):
            if name != KEPT:
                self.good(f"online-endpoint delete -y -n {name}")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace whose edge runs: an endpoint that nobody deletes keeps it up."""
    found = tmp_path_factory.mktemp("home")
    endpoints = LocalClient(Workspace(found)).online_endpoints
    endpoints.create_or_update(OnlineEndpoint(name=KEPT))
    yield found
    endpoints.delete(KEPT)


@pytest.fixture
def local(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Local]:
    """Local mode in a folder of the test's own."""
    monkeypatch.setenv("INFERAY_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    found = Local(home, tmp_path, capsys)
    yield found
    found.end()
