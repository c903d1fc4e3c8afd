"""Inference servers as plain processes: started, waited for, drained, ended."""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from inferay.config import Workspace
from inferay.edge_process import edge_url
from inferay.engine.scoring.environments import ensure
from inferay.errors import InferayError, InvalidInput, Unavailable, UserCodeError
from inferay.local.state import Server
from inferay.processes import (
    STOP_WAIT_S,
    Process,
    clean_environment,
    free_ports,
    spawn,
    wait_until_gone,
    write_json,
)
from inferay.serve.declared import route_timeout_s
from inferay.serve.log_tail import tail_of
from inferay.serve.replica_spec import ReplicaSpec
from inferay.serve.routing import credential

#: A process takes a second to start; a busy machine takes longer, whatever the probe says.
START_S_MIN = 60.0

#: While a debugger is attached nothing may run out of time: a person looks.
DEBUGGED_S = 86_400.0

#: Of the log, in the error about a process that ended without a word.
LAST_LINES = 20

_LOOK_S = 0.02


def start(
    workspace: Workspace, spec: ReplicaSpec, *, model: str, is_debugged: bool
) -> Server:
    """Start the process of a revision; returns at once, but for an environment that is not built.

    Args:
        workspace: Of local mode; its edge runs.
        spec: With a revision.
        model: The folder of its copy of the model, or "".
        is_debugged: Whether it listens for a debugger, and has no request timeout.
    """
    if is_debugged:
        limits = replace(spec.server.limits, request_timeout_s=DEBUGGED_S)
        spec = replace(spec, server=replace(spec.server, limits=limits))
    environment = spec.server.environment
    python = ensure(environment) if environment is not None else sys.executable
    id, debug_port = secrets.token_hex(8), free_ports(1)[0] if is_debugged else None
    key = workspace.registration_key.read_bytes().strip()
    logs = workspace.online_logs(spec.endpoint, spec.deployment) / spec.revision
    logs.mkdir(mode=0o700, parents=True)
    armed = replace(
        spec, edge_url=edge_url(workspace), log_dir=str(logs),
        credential=credential(key, spec.endpoint, spec.deployment, spec.revision),
    )
    folder = workspace.run / "servers"
    folder.mkdir(mode=0o700, exist_ok=True)
    write_json(folder / f"{id}.json", {
        "replica": armed.to_dict(), "id": id, "host": spec.host, "port": 0,
        "state": str(_state_file(workspace, id)), "debug_port": debug_port,
    })
    # Frozen modules hide the frames that a debugger needs.
    flags = ["-X", "frozen_modules=off"] if is_debugged else []
    process = spawn(
        [str(python), "-P", *flags, "-m", "inferay.serve.server", str(folder / f"{id}.json")],
        logs / f"{id}.log", clean_environment(),
    )
    return Server(
        spec.revision, id, Process(process.pid, process.create_time()), spec.requests_max,
        route_timeout_s(spec), STOP_WAIT_S if is_debugged else spec.drain_s, model, debug_port,
    )


def wait_until_ready(workspace: Workspace, spec: ReplicaSpec, server: Server) -> None:
    """Wait until a process listens and the edge has taken it in.

    For as long as its readiness probe gives it: initial_delay + period x failure_threshold.

    Raises:
        UserCodeError: Its script failed; the details are the user's traceback.
        InvalidInput: Something in the code folder is wrong.
        Unavailable: It took too long.
    """
    probe = spec.readiness
    limit_s = max(START_S_MIN, probe.initial_delay_s + probe.period_s * probe.failure_threshold)
    if server.debug_port is not None:
        limit_s = DEBUGGED_S
    until_s = time.monotonic() + limit_s
    while (told := _told(workspace, server.id)) is None:
        if server.process.find() is None and _told(workspace, server.id) is None:
            raise _ended(workspace, spec, server)
        if time.monotonic() >= until_s:
            raise Unavailable(
                f"deployment '{spec.deployment}' was not up after {limit_s:g} s (initial_delay + "
                "period x failure_threshold of its readiness_probe)",
                code="NotReady", target=spec.deployment,
                details=_last_words(workspace, spec, server) or None,
            )
        time.sleep(_LOOK_S)
    if told["state"] == "Failed":
        raise _error(told["error"])
    if not told["is_in"]:
        raise Unavailable(
            f"the local edge did not take in deployment '{spec.deployment}'; see "
            f"{workspace.logs / 'edge.log'}"
        )


def end_all(workspace: Workspace, servers: Iterable[Server]) -> None:
    """Let processes answer what is in flight and end, all at once; blocks until they are gone."""
    running = [(one, found) for one in servers if (found := one.process.find()) is not None]
    for _, process in running:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    begun_s = time.monotonic()
    for server, process in running:
        left_s = max(0.0, begun_s + server.drain_s - time.monotonic())
        if not wait_until_gone(process, left_s):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
            wait_until_gone(process, STOP_WAIT_S)
    for server in servers:
        (workspace.run / "servers" / f"{server.id}.json").unlink(missing_ok=True)
        _state_file(workspace, server.id).unlink(missing_ok=True)


def _state_file(workspace: Workspace, id: str) -> Path:
    return workspace.run / "servers" / f"{id}.state"


def _told(workspace: Workspace, id: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(_state_file(workspace, id).read_bytes())
    except FileNotFoundError:
        return None
    return found


def _error(told: dict[str, Any]) -> InferayError:
    cls = InvalidInput if told["code"] == InvalidInput.code else UserCodeError
    details = [one["message"] for one in told["details"]]
    return cls(
        told["message"], code=told["code"], target=told["target"],
        details="\n".join(details) or None,
    )


def _ended(workspace: Workspace, spec: ReplicaSpec, server: Server) -> UserCodeError:
    return UserCodeError(
        f"the process of deployment '{spec.deployment}' ended before it was up; see inferay "
        f"online-deployment get-logs --local -e {spec.endpoint} -n {spec.deployment}",
        code="ProcessEnded", target=spec.deployment,
        details=_last_words(workspace, spec, server) or None,
    )


def _last_words(workspace: Workspace, spec: ReplicaSpec, server: Server) -> str:
    logs = workspace.online_logs(spec.endpoint, spec.deployment) / server.revision
    return tail_of(logs, LAST_LINES)
