"""Processes of a workspace and the small files that know them: by process id and start time.

A process is ended only if both fit what `run/processes.json` says of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from inferay.config import ALLOW_VARIABLE, Workspace
from inferay.errors import InferayError

#: How long a process gets between SIGTERM and SIGKILL.
STOP_WAIT_S = 10.0

#: Ray takes 10002 to 19999 for workers by default, and the kernel 32768 and up for clients.
PORTS = range(20_000, 32_000)

#: Settings of ours that are for the control plane, and come from who called `up`.
_KEPT = ("INFERAY_DATABASE_URL", ALLOW_VARIABLE)


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


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only the user can read (0600), whole or not at all."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.replace(aside, path)


def spawn(command: list[str], log: Path, environment: dict[str, str]) -> psutil.Process:
    """Start a process in a session of its own, its output appended to the log."""
    with open(log, "ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment,
            start_new_session=True, cwd="/",
        )
    return psutil.Process(process.pid)


def wait_until_up(limit_s: float, process: psutil.Process, is_up: Callable[[], bool]) -> bool:
    """Return whether `is_up` came true before the limit and before the process ended; blocks."""
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        if is_up():
            return True
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        time.sleep(0.2)
    return False


def end(process: psutil.Process) -> None:
    """End the process; blocks until it is gone, for `STOP_WAIT_S` at most before it is killed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGTERM)
        if not wait_until_gone(process, STOP_WAIT_S):
            process.kill()
            wait_until_gone(process, STOP_WAIT_S)


def wait_until_gone(process: psutil.Process, limit_s: float) -> bool:
    """Return whether the process ended before the limit; blocks.

    One that its parent has not asked after yet has ended too: it may not be ours to ask after.
    """
    until_s = time.monotonic() + limit_s
    with contextlib.suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > until_s:
                return False
            time.sleep(0.02)
    return True


def remember(workspace: Workspace, name: str, process: psutil.Process) -> None:
    """Record the process under the name."""
    path = workspace.run / "processes.json"
    known = read_json(path)
    known[name] = asdict(Process(process.pid, process.create_time()))
    write_json(path, known)


def recorded(workspace: Workspace, name: str) -> Process | None:
    """Return what is recorded under the name, whether it runs or not."""
    known = read_json(workspace.run / "processes.json")
    return Process(**known[name]) if name in known else None


def find(processes: Mapping[str, Any], name: str) -> psutil.Process | None:
    """Return the process recorded under the name if it still runs."""
    return Process(**processes[name]).find() if name in processes else None


def clean_environment() -> dict[str, str]:
    """Return this process's environment without another Ray's or Python's settings."""
    return {
        k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(("RAY_", "INFERAY_"))
    }


@contextlib.contextmanager
def lock(workspace: Workspace, *, wait: bool = True) -> Iterator[bool]:
    """Let one `up` or `down` at a time work on the workspace; yield whether it is our turn."""
    with open(workspace.run / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def keep_settings(workspace: Workspace, given: dict[str, Any]) -> dict[str, Any]:
    """Add what is given (None is not) to the settings of the next `up`; return them all."""
    path = workspace.home / "settings.json"
    kept = read_json(path) | {key: value for key, value in given.items() if value is not None}
    write_json(path, kept)
    return kept


def read_json(path: Path) -> dict[str, Any]:
    """Return a file's object, or an empty one if there is no file.

    Raises:
        InferayError: The file is damaged.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InferayError(f"{path} is damaged: {error}; run `inferay down`") from error
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a value to a file that only the user can read, whole or not at all."""
    write_private(path, json.dumps(value).encode())


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, outside the ranges of Ray's workers and of clients."""
    found: list[int] = []
    while len(found) < count:
        port = PORTS[secrets.randbelow(len(PORTS))]
        if port not in found and is_free("", port):
            found.append(port)
    return found


def choose_port(host: str, preferred: int) -> int:
    """Return the preferred port if it is free, else another one."""
    return preferred if is_free(host, preferred) else free_ports(1)[0]


def is_free(host: str, port: int) -> bool:
    """Return whether a server could listen there now."""
    return refusal_of(host, port) is None


def refusal_of(host: str, port: int) -> OSError | None:
    """Return why no server could listen there now, or None if one could."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def last_line(path: Path) -> str:
    """Return a log's last line."""
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "no output"
