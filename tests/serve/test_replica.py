"""Replicas on Ray Serve, behind a real edge, and behind Serve's own HTTP."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from inferay.config import Workspace
from inferay.processes import free_ports, recorded
from inferay.ray_head import RayHead, end_ray, ensure_ray, ray_environment
from inferay.serve.replica_spec import ApplicationSpec, ReplicaResources, Scale
from inferay.serve.routing import DeploymentRoute, EndpointRoute, RoutingTable, digest_of
from inferay.serve.server.limits import Limits
from tests.edges import RunningEdge, started, wait_until
from tests.serve.loads import Load
from tests.serve.replicas import replica_spec

pytestmark = [
    pytest.mark.ray, pytest.mark.slow,
    # Ray's head is ended by its process id: whoever asks for one keeps no handle of it.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

KEY = "a-key"

#: Another replica above 6.4 requests in flight; taken away after 3 s below that.
SCALE = Scale(1, 2, target_percent=40, polling_s=0.1)

#: Tells which process answers; does to logging what closes Serve's own handlers.
BLUE = """
    import logging.config, os, time

    def init():
        print("loading the model")
        logging.config.dictConfig({"version": 1})

    def run(data):
        time.sleep(0.1)
        return [os.getpid(), os.environ["OMP_NUM_THREADS"]]
"""

BROKEN = """
    import pathlib, time

    def init():
        pathlib.Path(__file__).with_name("failed_at").write_text(str(time.time()))
        raise ValueError("no weights")

    def run(data):
        pass
"""

DEPLOYMENT = """
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: blue
endpoint_name: alone
model:
  path: ./model
code_configuration:
  code: ./src
  scoring_script: score.py
environment:
  image: mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest
  conda_file: {dependencies: [python=3.11]}
instance_type: Standard_DS3_v2
instance_count: 1
"""

ALONE = """
import os


def init():
    global weight
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model", "weight.txt")) as file:
        weight = int(file.read())


def run(data):
    return int(data) * weight
"""


@dataclass
class Stage:
    """Ray Serve and an edge."""

    edge: RunningEdge
    head: RayHead
    http_port: int
    folder: Path

    def deploy(self, *applications: ApplicationSpec) -> None:
        """Tell Serve which applications there are, as the control plane does."""
        answer = self._ask("PUT", json={
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": self.http_port},
            "applications": [one.to_dict() for one in applications],
        })
        assert answer.status_code == 200, answer.text

    def status(self, application: ApplicationSpec) -> dict[str, Any]:
        """Return what Serve says of an application; nothing while its controller is down."""
        with contextlib.suppress(httpx.HTTPError):
            answer = self._ask("GET")
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()["applications"].get(application.name, {})
                return found
        return {}

    def is_running(self, application: ApplicationSpec) -> bool:
        return self.status(application).get("status") == "RUNNING"

    def score(self) -> Any:
        """Return what blue answers through the edge: its process, and its variable."""
        with self.edge.http() as client:
            answer = client.post(
                "/endpoints/digits/score", content="1", headers={"authorization": f"Bearer {KEY}"}
            )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def count(self, deployment: str) -> int:
        """Return how many of a deployment's replicas the edge knows."""
        return sum(one.deployment == deployment for one in self.edge.state().replicas)

    def controller(self) -> psutil.Process:
        """Return the process of Serve's controller."""
        [found] = [
            one for one in psutil.process_iter(["cmdline"])
            if one.info["cmdline"] and "ServeController" in one.info["cmdline"][0]
            and _is_below(one, recorded(Workspace(self.folder / "home"), "ray"))
        ]
        return found

    def _ask(self, method: str, **body: Any) -> httpx.Response:
        token = Path(self.head.token_path).read_text().strip()
        return httpx.request(
            method, f"{self.head.dashboard}/api/serve/applications/", timeout=60, trust_env=False,
            headers={"authorization": f"Bearer {token}"}, **body,
        )


def _is_below(process: psutil.Process, head: Any) -> bool:
    with contextlib.suppress(psutil.Error):
        return head is not None and any(one.pid == head.pid for one in process.parents())
    return False


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    folder = Path(tempfile.mkdtemp(prefix="ir", dir="/tmp"))
    workspace = Workspace(folder / "home")
    try:
        with started(folder / "edge-of-tests") as edge:
            for one in (workspace.secrets, workspace.run, workspace.logs):
                one.mkdir(parents=True)
            workspace.ray_token.write_text("a-token-of-ray-for-tests-0123456789")
            workspace.ray_token.chmod(0o600)
            head = ensure_ray(workspace)
            try:
                yield Stage(edge, head, free_ports(1)[0], folder)
            finally:
                end_ray(recorded(workspace, "ray"), head.temp_dir)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def application(stage: Stage, deployment: str, script: str) -> ApplicationSpec:
    spec = replica_spec(
        stage.folder / deployment, script, deployment=deployment, edge_url=stage.edge.management,
        credential=stage.edge.credential("digits", deployment, "r1"),
        log_dir=str(stage.folder / "logs"),
        limits=Limits(concurrent_requests_max=16, request_timeout_s=10.0),
    )
    return ApplicationSpec(
        spec, scale=SCALE, resources=ReplicaResources(num_cpus=0.1, threads=3)
    )


@pytest.fixture(scope="module")
def blue(stage: Stage) -> ApplicationSpec:
    """Deploy a good deployment, which has all the traffic, and one that cannot start."""
    found, broken = application(stage, "blue", BLUE), application(stage, "broken", BROKEN)
    with contextlib.closing(stage.edge.client()) as client:
        client.publish(RoutingTable((EndpointRoute(
            "digits", (digest_of(KEY),), traffic={"blue": 100},
            deployments=(DeploymentRoute("blue", "r1", 32, 30.0),),
        ),)))
    stage.deploy(found, broken)
    wait_until(lambda: stage.edge.state().failures, "the failure of broken", 60)
    (stage.folder / "told_at").write_text(str(time.time()))
    wait_until(lambda: stage.is_running(found), "blue", 60)
    return found


def test_a_replica_listens_on_a_port_of_its_own_and_keeps_a_log(
    stage: Stage, blue: ApplicationSpec
) -> None:
    assert stage.score()[1] == "3"
    [replica] = [one for one in stage.edge.state().replicas if one.deployment == "blue"]
    assert (replica.endpoint, replica.deployment, replica.revision) == ("digits", "blue", "r1")
    assert httpx.get(f"http://{replica.host}:{replica.port}/").status_code == 403
    log = stage.folder / "logs" / f"{replica.id}.log"
    assert "loading the model" in log.read_text()


def test_an_init_that_raises_is_told_at_once_with_the_users_traceback(
    stage: Stage, blue: ApplicationSpec
) -> None:
    failure = next(one for one in stage.edge.state().failures if one.deployment == "broken")
    assert failure.error["message"] == "init() of score.py failed: ValueError: no weights"
    assert 'File "score.py", line 6, in init' in failure.error["details"][0]["message"]
    failed_at = float((stage.folder / "broken" / "failed_at").read_text())
    assert float((stage.folder / "told_at").read_text()) - failed_at < 5


def test_a_controller_that_is_killed_keeps_the_replicas_and_no_request_is_lost(
    stage: Stage, blue: ApplicationSpec
) -> None:
    pid, controller = stage.score()[0], stage.controller()
    with Load(stage.edge, "digits", KEY) as load:
        controller.send_signal(signal.SIGKILL)
        controller.wait(30)
        wait_until(lambda: stage.is_running(blue), "a new controller", 60)
        load.wait_for(50)
    assert set(load.seen) == {"200"}
    assert stage.score()[0] == pid
    assert stage.controller().pid != controller.pid


def test_replicas_follow_the_load_and_no_request_is_lost(
    stage: Stage, blue: ApplicationSpec
) -> None:
    with Load(stage.edge, "digits", KEY, clients=2) as low:
        with Load(stage.edge, "digits", KEY, clients=12) as high:
            wait_until(lambda: stage.count("blue") == 2, "a second replica", 60)
            high.wait_for(100)
        wait_until(lambda: stage.count("blue") == 1, "one to leave again", 60)
        low.wait_for(20)
    assert set(low.seen + high.seen) == {"200"}


def test_other_scale_settings_start_no_replica_anew(stage: Stage, blue: ApplicationSpec) -> None:
    before = stage.score()[0]
    stage.deploy(replace(blue, scale=replace(SCALE, replicas_min=2)))
    wait_until(lambda: stage.count("blue") == 2, "a second replica", 60)
    assert before in {stage.score()[0] for _ in range(20)}


def test_people_who_drive_serve_themselves_are_answered_over_its_http(
    stage: Stage, blue: ApplicationSpec
) -> None:
    folder = stage.folder / "alone"
    for name, text in {
        "deployment.yml": DEPLOYMENT, "model/weight.txt": "6", "src/score.py": ALONE,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "ray.serve.scripts", "run", "inferay.serve:build",
             "deployment=deployment.yml"],
            cwd=folder, stdout=log, stderr=log, env=os.environ | ray_environment(stage.head),
        )
    url = f"http://127.0.0.1:{stage.http_port}"

    def answers() -> bool:
        assert running.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/").text == "Healthy"
        return False

    try:
        wait_until(answers, "serve run", 60)
        assert httpx.post(f"{url}/score", content="7").json() == 42
    finally:
        running.send_signal(signal.SIGINT)
        try:
            running.wait(150)   # Ray's own end, on busy cores
        finally:
            running.kill()   # else it is a leftover of every test after this one
            running.wait()
