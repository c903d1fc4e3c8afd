"""What `inferay up`, `status` and `down` do: start, find and end the processes of a workspace.

Two things run: a Ray head (unless another cluster is joined) and the control plane. Each is known
by process id and start time, in `run/processes.json`, and only those are ever ended. A second `up`
starts what is missing. Knows no database and no HTTP route.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from inferay.config import PUBLIC_HOST, PUBLIC_PORT, Workspace
from inferay.errors import Conflict, InferayError, Unavailable

#: A Ray head takes 7 to 30 s here, and longer on a loaded machine.
RAY_START_S = 120.0
RAY_START_TRIES = 3

#: The control plane answers within a second or two; a migration may take longer.
CONTROL_START_S = 60.0

#: How long a process gets between SIGTERM and SIGKILL.
STOP_WAIT_S = 10.0

#: Rows never pass through Ray's object store; Ray wants one all the same.
OBJECT_STORE_BYTES = 128 << 20

#: A longer temp dir leaves no room for the names of Ray's sockets (macOS's own is longer).
TEMP_CHARS_MAX = 10

#: A frozen node is noticed after about 10 s; Ray's own defaults take a minute.
RAY_HEALTH = {"period_ms": 1000, "timeout_ms": 3000, "failure_threshold": 3}

#: Ray takes 10002 to 19999 for workers by default, and the kernel 32768 and up for clients.
RAY_PORTS = range(20_000, 32_000)


@dataclass(frozen=True)
class Process:
    """A process that `up` started: its id means it only together with its start time."""

    pid: int
    started_at: float

    def find(self) -> psutil.Process | None:
        """Return the process if it still runs, else None."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid)
            is_same = abs(found.create_time() - self.started_at) < 1.0
            if is_same and found.status() != psutil.STATUS_ZOMBIE:
                return found
        return None


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


@dataclass(frozen=True)
class State:
    """What runs in a workspace.

    Attributes:
        control: The control plane's process, if it runs.
        ray: The Ray head's process, if `up` started one and it runs.
        head: Where Ray answers, if known.
        url: The public address.
    """

    control: psutil.Process | None
    ray: psutil.Process | None
    head: RayHead | None
    url: str | None


def up(
    workspace: Workspace, *, host: str | None = None, port: int | None = None,
    ray_address: str | None = None, workers_max: int | None = None,
) -> State:
    """Start what is missing of the workspace; blocks until it answers; idempotent.

    Args:
        workspace: Which one.
        host: What the public port binds to; kept for the next `up`.
        port: The public port; kept for the next `up`.
        ray_address: `http://HOST:PORT` of a running cluster's dashboard, to join instead of
            starting a head; kept for the next `up`.
        workers_max: Workers of one job at most on this machine; kept for the next `up`.

    Raises:
        Unavailable: Something did not start; the message names its log.
        Conflict: The port is taken by another program, or the workspace runs a Ray of its own and
            shall join another one.
    """
    prepare(workspace)
    given = {"host": host, "port": port, "ray_address": ray_address, "workers_max": workers_max}
    given = {key: value for key, value in given.items() if value is not None}
    with _lock(workspace):
        settings = _read_json(workspace.home / "settings.json") | given
        ensure_ray(workspace, settings.get("ray_address"))
        _ensure_control(workspace, settings)
        _keep_settings(workspace, given)   # only what works
        return look(workspace)


def look(workspace: Workspace) -> State:
    """Return what runs now."""
    processes = _read_json(workspace.run / "processes.json")
    head = _read_json(workspace.run / "ray.json")
    control = _find(processes, "control")
    address = _read_json(workspace.run / "control.json")
    return State(
        control=control, ray=_find(processes, "ray"), head=RayHead(**head) if head else None,
        url=address.get("url"),
    )


def down(workspace: Workspace) -> list[str]:
    """End what `up` started, by id; blocks until it is gone; idempotent.

    Returns:
        The names of what was ended.
    """
    if not workspace.run.exists():
        return []
    with _lock(workspace):
        ended = []
        state = look(workspace)
        if state.control is not None:
            _end(state.control)
            ended.append("control plane")
        state = look(workspace)   # it may have started Ray again until then
        if state.head is not None and state.head.temp_dir:
            if state.ray is not None:
                ended.append("Ray")
            _end_ray(_recorded(workspace, "ray"), state.head.temp_dir)
        for name in ("processes.json", "ray.json", "control.json"):
            (workspace.run / name).unlink(missing_ok=True)
        return ended


def prepare(workspace: Workspace) -> None:
    """Make the workspace's folders and tokens, private to the user; idempotent."""
    workspace.home.mkdir(parents=True, exist_ok=True)
    workspace.home.chmod(0o700)
    for folder in (workspace.secrets, workspace.run, workspace.logs, workspace.tls,
                   workspace.assets, workspace.datastores):
        folder.mkdir(mode=0o700, exist_ok=True)
    with _lock(workspace):   # two that start at once must agree on the tokens
        for path in (workspace.admin_token, workspace.ray_token):
            if not path.exists():
                write_private(path, secrets.token_urlsafe(32).encode())


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only the user can read (0600), whole or not at all."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.replace(aside, path)


def ray_environment(head: RayHead) -> dict[str, str]:
    """Return the variables with which Ray's own tools and `ray.init()` reach the cluster."""
    found = {"RAY_ADDRESS": head.gcs, "RAY_API_SERVER_ADDRESS": head.dashboard}
    if head.token_path:
        found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": head.token_path}
    return {key: value for key, value in found.items() if value}


# -- Ray


def ensure_ray(workspace: Workspace, ray_address: str | None = None) -> RayHead:
    """Start a Ray head if none runs; return where it answers; blocks until it does.

    Raises:
        Unavailable: It did not start within three tries.
        Conflict: Another cluster shall be joined while the workspace runs a head of its own.
    """
    state = look(workspace)
    if ray_address:
        if state.ray is not None:
            raise Conflict(
                "the workspace runs a Ray of its own; end it with `inferay down` before another "
                "one is joined",
                code="RayRunning",
            )
        if state.head is not None and state.head.temp_dir:
            _end_ray(_recorded(workspace, "ray"), state.head.temp_dir)   # what a dead one left
        token = os.environ.get("RAY_AUTH_TOKEN_PATH", "")
        head = RayHead("", ray_address.rstrip("/"), "", token)
        _write_json(workspace.run / "ray.json", asdict(head))
        return head
    if state.ray is not None and state.head is not None and _answers(state.head):
        return state.head
    if state.head is not None and state.head.temp_dir:
        _end_ray(_recorded(workspace, "ray"), state.head.temp_dir)
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
    with _lock(workspace, wait=False) as is_ours:
        state = look(workspace) if is_ours else None
        if state is None or state.ray or state.head is None or not state.head.temp_dir:
            return False
        ensure_ray(workspace)
        return True


def _start_ray(workspace: Workspace) -> RayHead | None:
    temp_dir = _ray_temp_dir(workspace)
    # Ray's defaults are fixed ports: a second cluster on the machine would get no agent.
    gcs_port, dashboard_port, client_port, agent_port, *others = _free_ports(7)
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
        **_clean_environment(), **ray_environment(head), "RAY_TMPDIR": str(temp_dir),
        "RAY_worker_niceness": "0", "PATH": f"{interpreter}:{os.environ.get('PATH', '')}",
        **{f"RAY_health_check_{name}": str(value) for name, value in RAY_HEALTH.items()},
    }
    del environment["RAY_ADDRESS"], environment["RAY_API_SERVER_ADDRESS"]
    _write_json(workspace.run / "ray.json", asdict(head))   # `down` finds it from now on
    process = _spawn(command, workspace.logs / "ray.log", environment)
    _remember(workspace, "ray", process)
    if _wait(RAY_START_S, process, lambda: _answers(head)):
        return head
    _end_ray(_recorded(workspace, "ray"), str(temp_dir))
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


def _end_ray(head: Process | None, temp_dir: str) -> None:
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


# -- the control plane


def _ensure_control(workspace: Workspace, settings: Mapping[str, Any]) -> None:
    state = look(workspace)
    if state.control is not None and state.url and _control_answers(workspace, state.url):
        return
    if state.control is not None:
        _end(state.control)
    host = settings.get("host") or PUBLIC_HOST
    port = settings.get("port") or _choose_port(host, settings.get("last_port", PUBLIC_PORT))
    if not _is_free(host, port):
        raise Conflict(
            f"port {port} on {host} is taken by another program; choose one with --port",
            code="PortTaken",
        )
    url_host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"https://{url_host}:{port}"
    log = workspace.logs / "control.log"
    command = [
        sys.executable, "-P", "-m", "inferay.control", "--host", host, "--port", str(port),
        "--url", url,
    ]
    environment = {**_clean_environment(), "INFERAY_HOME": str(workspace.home)}
    if settings.get("workers_max"):
        environment["INFERAY_WORKERS_MAX"] = str(settings["workers_max"])
    process = _spawn(command, log, environment)
    _remember(workspace, "control", process)
    _write_json(workspace.run / "control.json", {"url": url})
    _keep_settings(workspace, {"last_port": port})   # scoring URIs should stay as they are
    if not _wait(CONTROL_START_S, process, lambda: _control_answers(workspace, url)):
        _end(process)
        raise Unavailable(f"the control plane did not start: {_last_line(log)} (see {log})")


def _control_answers(workspace: Workspace, url: str) -> bool:
    import ssl

    import httpx

    if not workspace.ca_certificate.exists():
        return False
    token = workspace.admin_token.read_text().strip()
    try:
        answer = httpx.get(
            f"{url}/v1/computes", headers={"Authorization": f"Bearer {token}"}, timeout=5.0,
            verify=ssl.create_default_context(cafile=str(workspace.ca_certificate)),
            trust_env=False,
        )
    except (httpx.HTTPError, ssl.SSLError):
        return False
    return answer.status_code == 200


# -- processes


def _spawn(command: list[str], log: Path, environment: dict[str, str]) -> psutil.Process:
    with open(log, "ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment,
            start_new_session=True, cwd="/",
        )
    return psutil.Process(process.pid)


def _wait(limit_s: float, process: psutil.Process, is_up: Any) -> bool:
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        if is_up():
            return True
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        time.sleep(0.2)
    return False


def _end(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WAIT_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_WAIT_S)


def _remember(workspace: Workspace, name: str, process: psutil.Process) -> None:
    path = workspace.run / "processes.json"
    known = _read_json(path)
    known[name] = asdict(Process(process.pid, process.create_time()))
    _write_json(path, known)


def _recorded(workspace: Workspace, name: str) -> Process | None:
    known = _read_json(workspace.run / "processes.json")
    return Process(**known[name]) if name in known else None


def _find(processes: Mapping[str, Any], name: str) -> psutil.Process | None:
    return Process(**processes[name]).find() if name in processes else None


def _clean_environment() -> dict[str, str]:
    """This process's environment without another Ray's or Python's settings."""
    kept = ("INFERAY_DATABASE_URL",)
    return {
        k: v for k, v in os.environ.items() if k in kept or not k.startswith(("RAY_", "INFERAY_"))
    }


# -- small things


@contextlib.contextmanager
def _lock(workspace: Workspace, *, wait: bool = True) -> Iterator[bool]:
    """Let one `up` or `down` at a time work on the workspace; yield whether it is our turn."""
    with open(workspace.run / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _keep_settings(workspace: Workspace, given: dict[str, Any]) -> dict[str, Any]:
    path = workspace.home / "settings.json"
    kept = _read_json(path) | {key: value for key, value in given.items() if value is not None}
    _write_json(path, kept)
    return kept


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InferayError(f"{path} is damaged: {error}; run `inferay down`") from error
    return found


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_private(path, json.dumps(value).encode())


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, outside the ranges of Ray's workers and of clients."""
    found: list[int] = []
    while len(found) < count:
        port = RAY_PORTS[secrets.randbelow(len(RAY_PORTS))]
        if port not in found and _is_free("", port):
            found.append(port)
    return found


def _choose_port(host: str, preferred: int) -> int:
    return preferred if _is_free(host, preferred) else _free_ports(1)[0]


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "no output"
