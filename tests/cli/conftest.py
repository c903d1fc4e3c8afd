from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from inferay.cli.main import run
from inferay.control.app import create_app
from inferay.control.reconcile import Reconciler
from inferay.tls import ensure_tls
from tests.control.conftest import SCORE, Plane, ThreadJobs

__all__ = ["SCORE"]

ENDPOINT = "name: digits\ndescription: Reads digits\nauth_mode: aad_token\n"

DEPLOYMENT = """\
name: blue
type: model
code_configuration:
  code: ./src
  scoring_script: score.py
compute: azureml:cpu-cluster
resources:
  instance_count: 1
settings:
  mini_batch_size: 4
  retry_settings: {max_retries: 0, timeout: 5}
"""


@dataclass
class Served:
    """A control plane that serves https in this process, with the real engine and no Ray."""

    plane: Plane
    url: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    plane = Plane(tmp_path_factory.mktemp("served") / "home", ThreadJobs())
    tls = ensure_tls(plane.workspace, "127.0.0.1")
    reconciler = Reconciler(plane.context)
    server = uvicorn.Server(uvicorn.Config(
        create_app(plane.context), host="127.0.0.1", port=0, log_config=None,
        ssl_certfile=str(tls.certificate), ssl_keyfile=str(tls.key), timeout_graceful_shutdown=2,
    ))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = plane.context.url = f"https://127.0.0.1:{port}"
    (plane.workspace.run / "control.json").write_text(json.dumps({"url": url}))
    reconciler.start()
    yield Served(plane, url)
    server.should_exit = True
    thread.join()
    reconciler.stop()
    plane.close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, made current: YAML, code and data."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "score.py").write_text(SCORE)
    (tmp_path / "data").mkdir()
    for number in range(10):
        (tmp_path / "data" / f"{number}.txt").write_text(str(number))
    (tmp_path / "endpoint.yml").write_text(ENDPOINT)
    (tmp_path / "deployment.yml").write_text(DEPLOYMENT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)


Inferay = Callable[..., Said]


@pytest.fixture
def inferay(
    served: Served, project: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Inferay:
    """Run a command line in this process, in the workspace that is served."""
    monkeypatch.setenv("INFERAY_HOME", str(served.plane.workspace.home))

    def call(*arguments: str) -> Said:
        code = run([*arguments])
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call
