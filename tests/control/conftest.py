from __future__ import annotations

import itertools
import json
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from inferay import launcher
from inferay.config import Workspace
from inferay.control.app import create_app
from inferay.control.context import Context, Machine
from inferay.control.database import Database
from inferay.control.endpoints import ensure_datastores
from inferay.control.jobs import Watcher
from inferay.control.operations import Runner
from inferay.control.reconcile import all_steps
from inferay.control.tokens import ensure_admin
from inferay.engine.batch.driver import Driver
from inferay.engine.batch.journal import SupersededError
from inferay.engine.batch.pool import LocalPool
from inferay.engine.batch.result import Interrupted
from inferay.engine.storage import Access
from inferay.errors import Unavailable
from inferay.jobs.folder import read_frozen

SCORE = """
import os

def init():
    pass

def run(mini_batch):
    return [os.path.basename(path) for path in mini_batch]
"""


class ThreadJobs:
    """Ray's job API with the real engine on a thread per driver, and no Ray."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.submitted: list[str] = []
        self.is_away = False
        self._threads: list[threading.Thread] = []
        self._is_ended = threading.Event()

    def submit(self, submission_id: str, entrypoint: str, env: dict[str, str]) -> None:
        self._check_there()
        if submission_id in self.known:
            return
        self.submitted.append(submission_id)
        self.known[submission_id] = "alive"
        words = shlex.split(entrypoint)
        options = dict(itertools.pairwise(words))
        access = Access()
        if "--access" in options:
            access = Access.from_dict(json.loads(Path(options["--access"]).read_bytes()))
        thread = threading.Thread(
            target=self._drive,
            args=(submission_id, Path(options["run"]), int(options["--epoch"]), access),
        )
        self._threads.append(thread)
        thread.start()

    def drivers(self) -> dict[str, str]:
        self._check_there()
        return dict(self.known)

    def message(self, submission_id: str) -> str:
        return "it died"

    def stop(self, submission_id: str) -> None:
        self._check_there()

    def close(self) -> None:
        for thread in self._threads:
            thread.join()

    def end_drivers(self) -> None:
        """End every driver in the middle of its work."""
        self._is_ended.set()
        self.close()
        self._is_ended.clear()

    def forget(self) -> None:
        """Be a head that was restarted: it knows nothing of what ran before."""
        self.known.clear()

    def _check_there(self) -> None:
        if self.is_away:
            raise Unavailable("Ray does not answer", code="RayUnavailable")

    def _drive(self, key: str, spec: Path, epoch: int, access: Access) -> None:
        try:
            Driver(read_frozen(spec), LocalPool, epoch, self._is_ended.is_set, access).run()
        except (Interrupted, SupersededError):
            pass
        finally:
            self.known[key] = "gone"


class Plane:
    """A control plane in this process: its loop turns when the test says so."""

    def __init__(self, home: Path, ray: Any) -> None:
        self.workspace = Workspace(home)
        launcher.prepare(self.workspace)
        self.database = Database.in_file(self.workspace.database)
        self.database.migrate()
        with self.database.write() as session:
            ensure_admin(session, self.workspace.admin_token)
            ensure_datastores(session, self.workspace)
        self.ray = ray
        self.context = Context(
            database=self.database, workspace=self.workspace, url="https://test",
            machine=Machine(cpus=2, cores=2, gpus=0, memory_bytes=64 << 30), workers_max=None,
            is_embedded=True,
            ray=lambda: ray, serve=self._away, edge=self._away,
        )
        self.restart()
        token = self.workspace.admin_token.read_text()
        self.http = self.client(token)

    def _away(self) -> Any:
        raise Unavailable("not in this test")

    def restart(self) -> None:
        """Forget what a process would forget."""
        self.runner = Runner(self.context, all_steps())
        self.watcher = Watcher(self.context)

    def client(self, token: str | None) -> TestClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return TestClient(
            create_app(self.context), base_url="https://test", headers=headers,
            raise_server_exceptions=False,
        )

    def turn(self) -> None:
        """Turn the loop once, on this thread."""
        for key in self.runner.due():
            self.runner.drive(key)
        self.watcher._looked_s = 0.0   # ask Ray on every turn
        self.watcher.look()

    def put(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """PUT, then finish its operation."""
        answer: httpx.Response = self.http.put(path, json=body)
        self.turn()
        return answer

    def job(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/v1/jobs/{name}").json()["properties"]
        return found

    def wait(self, name: str, *states: str) -> dict[str, Any]:
        """Turn the loop until the job is in one of the states."""
        deadline = threading.Event()
        for _ in range(600):
            self.turn()
            job = self.job(name)
            if job["status"] in (states or ("Completed", "Failed", "Canceled")):
                return job
            deadline.wait(0.02)
        raise AssertionError(json.dumps(job, indent=2))

    def close(self) -> None:
        self.ray.close()
        self.runner.close()
        self.database.close()


@pytest.fixture(autouse=True)
def _no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers do not wait for operations: the test turns the loop."""
    monkeypatch.setattr("inferay.control.routes.common.SETTLE_S", 0.0)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    plane = Plane(tmp_path / "home", ThreadJobs())
    yield plane
    plane.close()


@pytest.fixture
def make_code(tmp_path: Path) -> Callable[[str], Path]:
    def make(score: str = SCORE) -> Path:
        folder = tmp_path / "src"
        folder.mkdir(exist_ok=True)
        (folder / "score.py").write_text(score)
        return folder

    return make


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02d}.txt").write_text(str(number))
    return folder


def deploy(
    plane: Plane, code: Path, *, endpoint: str = "digits", name: str = "blue", **settings: Any
) -> None:
    """Make an endpoint with a default deployment of the code."""
    plane.put(f"/v1/batchEndpoints/{endpoint}", {"properties": {}}).raise_for_status()
    version = "1" if name == "blue" else name
    codes = plane.put(
        f"/v1/codes/{endpoint}/versions/{version}", {"properties": {"codeUri": str(code)}}
    )
    codes.raise_for_status()
    body = {"properties": {
        "codeConfiguration": {
            "codeId": f"azureml:{endpoint}:{version}", "scoringScript": "score.py",
        },
        "miniBatchSize": 4, **settings,
    }}
    plane.put(f"/v1/batchEndpoints/{endpoint}/deployments/{name}", body).raise_for_status()
    plane.put(
        f"/v1/batchEndpoints/{endpoint}",
        {"properties": {"defaults": {"deploymentName": name}}},
    ).raise_for_status()


def invocation(data: Path, **properties: Any) -> dict[str, Any]:
    kind = "UriFolder" if data.is_dir() else "UriFile"
    inputs = {"inputData": {"input": {"jobInputType": kind, "uri": str(data)}}}
    return {"properties": {**inputs, **properties}}


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's empty tables, which take seconds to make."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("mlflow")
    MlflowClient(f"sqlite:///{folder}/mlflow.db").search_registered_models()
    return folder / "mlflow.db"
