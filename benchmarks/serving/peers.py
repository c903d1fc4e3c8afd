"""The servers that people know, each alone, at the best of the settings named here.

Which of its settings is best is measured first, at 16 connections. Each but Ray Serve, which we
depend on, has an environment of its own, `.venv-bench-NAME`, with the pins in `locks/NAME.lock`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.serving import models
from benchmarks.serving.load import Target, drive
from benchmarks.serving.processes import ROOT, START_S, process, variables, wait_for
from inferay.processes import free_ports

APPS = "benchmarks.serving.apps"

#: The load that chooses between settings.
CHOICE_CONNECTIONS = 16
CHOICE_S = 3.0

BODY = json.dumps(models.REQUEST).encode()

#: A program in a peer's environment.
Program = Callable[[str], str]


@dataclass(frozen=True)
class Server:
    """A command that serves a model, and where it answers."""

    command: list[str]
    target: Target
    environment: dict[str, str]


#: Says how a model is served: its name, a folder, the programs.
Setting = Callable[[str, Path, Program], Server]


class CannotRun(Exception):
    """Raised when a peer cannot run on this machine; the reason goes into the table."""


def fastapi(model: str, folder: Path, program: Program, *, path: str = "/score") -> Server:
    """One process, no access log."""
    [port] = free_ports(1)
    command = [
        sys.executable, "-m", "uvicorn", f"{APPS}.fastapi_app:app", "--port", str(port), "--loop",
        "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning",
    ]
    return Server(command, _target("fastapi", port, path, model), {})


def _mlserver(model: str, folder: Path, program: Program, *, is_plain: bool) -> Server:
    http, grpc, metrics = free_ports(3)
    (folder / "settings.json").write_text(json.dumps({
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics,
        "debug": False, "parallel_workers": 0,
    }))
    (folder / "model-settings.json").write_text(json.dumps({
        "name": "m", "implementation": f"{APPS}.mlserver_app.Scorer",
    }))
    command = [program("mlserver"), "start", str(folder)]
    if is_plain:
        return Server(command, _target("mlserver", http, "/score", model), {})
    rows = models.REQUEST["data"]
    tensor = {
        "name": "input", "shape": [len(rows), len(rows[0])], "datatype": "FP64",
        "data": [value for row in rows for value in row],
    }
    body = json.dumps({"inputs": [tensor]}).encode()
    url = f"http://127.0.0.1:{http}/v2/models/m/infer"
    return Server(command, Target("mlserver", url, body), {})


def _litserve(
    model: str, folder: Path, program: Program, *, workers: int, servers: int
) -> Server:
    [port] = free_ports(1)
    command = [
        program("python"), "-m", f"{APPS}.litserve_app", str(port), str(workers), str(servers),
    ]
    return Server(command, _target("litserve", port, "/score", model), {})


def _bentoml(model: str, folder: Path, program: Program, *, path: str, workers: int) -> Server:
    [port] = free_ports(1)
    command = [
        program("bentoml"), "serve", f"{APPS}.bentoml_app:Scorer", "--host", "127.0.0.1",
        "--port", str(port), "--working-dir", str(ROOT),
    ]
    environment = {
        "WORKERS": str(workers), "BENTOML_DO_NOT_TRACK": "1", "BENTOML_HOME": str(folder),
    }
    return Server(command, _target("bentoml", port, path, model), environment)


def _mlflow(model: str, folder: Path, program: Program, *, workers: int) -> Server:
    saved = folder / "model"
    if not saved.exists():
        subprocess.run(
            [program("python"), "-m", f"{APPS}.mlflow_app", str(saved)], check=True, cwd=ROOT,
            env=variables({"MODEL": model}), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=START_S,
        )
    command, url = mlflow_server(saved, program, workers)
    body = json.dumps({"inputs": models.REQUEST["data"]}).encode()
    [values] = models.ANSWERS[model].values()
    target = Target("mlflow", url, body, {}, {"predictions": values})
    return Server(command, target, {"MLFLOW_DISABLE_TELEMETRY": "true"})


def mlflow_server(saved: Path, program: Program, workers: int) -> tuple[list[str], str]:
    """Return the command that serves a saved model, and where it answers."""
    [port] = free_ports(1)
    return [
        program("mlflow"), "models", "serve", "-m", str(saved), "-h", "127.0.0.1", "-p", str(port),
        "--env-manager", "local", "-w", str(workers),
    ], f"http://127.0.0.1:{port}/invocations"


def _ray_serve(
    model: str, folder: Path, program: Program, *, replicas: int, by_haproxy: bool
) -> Server:
    [port] = free_ports(1)
    command = [sys.executable, "-m", f"{APPS}.ray_serve_app", str(port), str(replicas)]
    environment = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    if by_haproxy:
        metrics, stats = free_ports(2)
        environment |= {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        }
    return Server(command, _target("ray_serve", port, "/score", model), environment)


def _target(name: str, port: int, path: str, model: str) -> Target:
    return Target(name, f"http://127.0.0.1:{port}{path}", BODY, {}, models.ANSWERS[model])


#: Each peer's settings that may be its best, with what the table says of them.
PEERS: dict[str, dict[str, Setting]] = {
    "mlserver": {
        "in process (parallel_workers 0), no debug log, V2 protocol":
            partial(_mlserver, is_plain=False),
        "in process (parallel_workers 0), no debug log, custom handler with plain JSON":
            partial(_mlserver, is_plain=True),
    },
    "litserve": {
        "fast_queue, 1 worker, 1 API server": partial(_litserve, workers=1, servers=1),
        "fast_queue, 2 workers, 1 API server": partial(_litserve, workers=2, servers=1),
        "fast_queue, 2 workers, 2 API servers": partial(_litserve, workers=2, servers=2),
    },
    "bentoml": {
        "1 worker, async API, no metrics or access log":
            partial(_bentoml, path="/inline", workers=1),
        "2 workers, async API, no metrics or access log":
            partial(_bentoml, path="/inline", workers=2),
        "1 worker, API in threads, no metrics or access log":
            partial(_bentoml, path="/score", workers=1),
    },
    "mlflow": {
        "1 worker, --env-manager local": partial(_mlflow, workers=1),
        "2 workers, --env-manager local": partial(_mlflow, workers=2),
    },
    "ray_serve": {
        "Serve's HAProxy mode, throughput-optimized, 1 replica":
            partial(_ray_serve, replicas=1, by_haproxy=True),
        "Serve's own proxy, throughput-optimized, 1 replica":
            partial(_ray_serve, replicas=1, by_haproxy=False),
        "Serve's HAProxy mode, throughput-optimized, 2 replicas":
            partial(_ray_serve, replicas=2, by_haproxy=True),
    },
}


@contextlib.contextmanager
def running(name: str, setting: Setting, model: str, folder: Path) -> Iterator[Target]:
    """Run a server until the end of the block.

    Raises:
        CannotRun: It does not start on this machine.
    """
    own = Path(tempfile.mkdtemp(dir=folder))
    server = setting(model, own, partial(program_of, name))
    log = own / "log"
    path = f"{Path(server.command[0]).parent}:{os.environ['PATH']}"   # for what it calls itself
    environment = {"MODEL": model, "PATH": path, **server.environment}
    with process(server.command, log, environment) as started:
        try:
            wait_for(server.target, started, log)
        except RuntimeError as error:
            raise CannotRun(str(error)) from None
        yield server.target


def best_setting(name: str, model: str, folder: Path) -> str:
    """Return what the best of a peer's settings is called.

    Raises:
        CannotRun: None of them runs.
    """
    found: dict[str, float] = {}
    said = ""
    for what, setting in PEERS[name].items():
        try:
            with running(name, setting, model, folder) as target:
                drive(target, CHOICE_CONNECTIONS, 1, folder)   # warm
                load = drive(target, CHOICE_CONNECTIONS, CHOICE_S, folder)
                found[what] = load.requests_per_s if not load.failed else 0.0
                print(f"{name}, {what}: {load}", file=sys.stderr, flush=True)
        except CannotRun as error:
            said = str(error)
            print(f"{name}, {what}: {said}", file=sys.stderr, flush=True)
    if not found:
        raise CannotRun(said)
    return max(found, key=lambda what: found[what])


def program_of(name: str, program: str) -> str:
    """Return the path of a program in a peer's environment."""
    path = ROOT / f".venv-bench-{name}" / "bin" / program
    if not path.exists():
        raise CannotRun(f"{path.relative_to(ROOT)} is missing: make .venv-bench-{name}/.installed")
    return str(path)
