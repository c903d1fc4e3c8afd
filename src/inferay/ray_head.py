"""The workspace's own Ray head: started with tokens, on free loopback ports; found, ended, revived.

Jobs lose nothing when it ends: their state is in their journals.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from inferay.config import Workspace
from inferay.errors import Conflict, Unavailable
from inferay.processes import (
    STOP_WAIT_S,
    Process,
    clean_environment,
    find,
    free_ports,
    lock,
    read_json,
    recorded,
    remember,
    spawn,
    wait_until_up,
    write_json,
)

#: A Ray head takes 7 to 30 s here, and longer on a loaded machine.
RAY_START_S = 120.0
RAY_START_TRIES = 3

#: Rows never pass through Ray's object store; Ray wants one all the same.
OBJECT_STORE_BYTES = 128 << 20

#: A longer temp dir leaves no room for the names of Ray's sockets (macOS's own is longer).
TEMP_CHARS_MAX = 10

#: A frozen node is noticed after about 10 s; Ray's own defaults take a minute.
RAY_HEALTH = {"period_ms": 1000, "timeout_ms": 3000, "failure_threshold": 3}


@dataclass(frozen=True)
class RayHead:
    """Where the workspace's Ray answers.

    Attributes:
        gcs: `HOST:PORT` for `ray.init`.
        dashboard: `http://HOST:PORT` of the job API.
        temp_dir: Its session folder's parent, or "" for a cluster that was joined.
        token_path: File with its token, or "" for a cluster without.
        agent: `http://HOST:PORT` of the head's own agent, which starts job drivers, if known.
    """

    gcs: str
    dashboard: str
    temp_dir: str
    token_path: str
    agent: str = ""


def ray_environment(head: RayHead) -> dict[str, str]:
    """Return the variables with which Ray's own tools and `ray.init()` reach the cluster."""
    found = {"RAY_ADDRESS": head.gcs, "RAY_API_SERVER_ADDRESS": head.dashboard}
    if head.token_path:
        found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": head.token_path}
    return {key: value for key, value in found.items() if value}


def known_ray(workspace: Workspace) -> RayHead | None:
    """Return where the workspace's Ray answers, if one was ever started or joined."""
    found = read_json(workspace.run / "ray.json")
    return RayHead(**found) if found else None


def running_ray(workspace: Workspace) -> psutil.Process | None:
    """Return the process of the workspace's own Ray head, if it runs."""
    return find(read_json(workspace.run / "processes.json"), "ray")


def _end_known(workspace: Workspace, known: RayHead | None) -> None:
    if known is not None and known.temp_dir:
        end_ray(recorded(workspace, "ray"), known.temp_dir)


def ensure_ray(workspace: Workspace, ray_address: str | None = None) -> RayHead:
    """Start a Ray head if none runs; return where it answers; blocks until it does.

    Raises:
        Unavailable: It did not start within three tries.
        Conflict: Another cluster shall be joined while the workspace runs a head of its own.
    """
    process, known = running_ray(workspace), known_ray(workspace)
    if ray_address:
        if process is not None:
            raise Conflict(
                "the workspace runs a Ray of its own; end it with `inferay down` before another "
                "one is joined",
                code="RayRunning",
            )
        _end_known(workspace, known)   # what a dead one left
        token = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
        head = RayHead("", ray_address.rstrip("/"), "", token)
        write_json(workspace.run / "ray.json", asdict(head))
        return head
    if process is not None and known is not None and _answers(known):
        return known
    _end_known(workspace, known)
    for _ in range(RAY_START_TRIES):
        started = _start_ray(workspace)
        if started is not None:
            return started
    raise Unavailable(
        f"Ray did not start; see {workspace.logs / 'ray.log'}", code="RayUnavailable"
    )


def revive_ray(workspace: Workspace) -> bool:
    """Start the workspace's own Ray head again if it died; return whether it did; may block long.

    Does nothing while `up` or `down` work on the workspace.

    Raises:
        Unavailable: It did not start.
    """
    with lock(workspace, wait=False) as is_ours:
        known = known_ray(workspace) if is_ours else None
        if known is None or not known.temp_dir or running_ray(workspace) is not None:
            return False
        ensure_ray(workspace)
        return True


def _start_ray(workspace: Workspace) -> RayHead | None:
    temp_dir = _ray_temp_dir(workspace)
    # Ray's defaults are fixed ports: a second cluster on the machine would get no agent.
    gcs_port, dashboard_port, client_port, agent_port, *others = free_ports(7)
    head = RayHead(
        gcs=f"127.0.0.1:{gcs_port}", dashboard=f"http://127.0.0.1:{dashboard_port}",
        temp_dir=str(temp_dir), token_path=str(workspace.ray_token),
        agent=f"http://127.0.0.1:{agent_port}",
    )
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
        "--node-ip-address=127.0.0.1", f"--port={gcs_port}", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard_port}", f"--ray-client-server-port={client_port}",
        f"--dashboard-agent-listen-port={agent_port}",
        *(f"--{name}={port}" for name, port in zip(
            ("dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port"),
            others, strict=True,
        )),
        "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats",
        f"--temp-dir={temp_dir}", f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--include-log-monitor=false",
    ]
    interpreter = str(Path(sys.executable).parent)
    environment = {
        **clean_environment(), **ray_environment(head), "RAY_TMPDIR": str(temp_dir),
        "RAY_worker_niceness": "0", "PATH": f"{interpreter}:{os.environ.get('PATH', '')}",
        **{f"RAY_health_check_{name}": str(value) for name, value in RAY_HEALTH.items()},
    }
    del environment["RAY_ADDRESS"], environment["RAY_API_SERVER_ADDRESS"]
    write_json(workspace.run / "ray.json", asdict(head))   # `down` finds it from now on
    process = spawn(command, workspace.logs / "ray.log", environment)
    remember(workspace, "ray", process)
    if wait_until_up(RAY_START_S, process, lambda: _answers(head)):
        return head
    end_ray(recorded(workspace, "ray"), str(temp_dir))
    return None


def _answers(head: RayHead) -> bool:
    """Whether Ray's job API answers, and the agent that starts its drivers."""
    import httpx

    token = Path(head.token_path).read_text().strip() if head.token_path else ""
    headers = {"Authorization": f"Bearer {token}", "User-Agent": "inferay"}
    try:
        addresses = [f"{head.dashboard}/api/jobs/"]
        addresses += [f"{head.agent}/api/local_raylet_healthz"] if head.agent else []
        return all(
            httpx.get(address, headers=headers, timeout=5.0, trust_env=False).status_code == 200
            for address in addresses
        )
    except httpx.HTTPError:
        return False


def _ray_temp_dir(workspace: Workspace) -> Path:
    """Make a short folder (sockets have at most 107 characters) below one that is ours alone."""
    key = hashlib.sha256(os.fsencode(workspace.home)).hexdigest()[:6]
    root = tempfile.gettempdir()
    root = root if len(root) <= TEMP_CHARS_MAX else "/tmp"
    parent = Path(root) / f"inferay-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    found = parent.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Conflict(f"{parent} is not private to this user; remove it and try again")
    folder = parent / f"{key}{secrets.token_hex(2)}"
    folder.mkdir(mode=0o700)
    (folder / "ray").mkdir()
    return folder


def end_ray(head: Process | None, temp_dir: str) -> None:
    """End the head and all that it started, and delete its folder; blocks until it is gone.

    Jobs lose nothing by it: their state is in their journals. A head that is asked nicely waits
    for its drivers for longer than a person waits for `down`.
    """
    for _ in range(3):   # what was being started while we looked is found by the next look
        found = list(_of_head(head, temp_dir))
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=STOP_WAIT_S)
        if not found:
            break
    shutil.rmtree(temp_dir, ignore_errors=True)


def _of_head(head: Process | None, temp_dir: str) -> Iterator[psutil.Process]:
    """Yield the processes of a head: its session's, and any with its temp dir.

    Ray's agents overwrite their environment with a title; job drivers open sessions of their own.
    """
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            is_in_session = (
                head is not None and os.getsid(process.pid) == head.pid
                and process.create_time() >= head.started_at - 1.0
            )
            if is_in_session or process.environ().get("RAY_TMPDIR") == temp_dir:
                yield process
