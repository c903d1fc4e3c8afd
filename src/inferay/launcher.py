"""What `inferay up`, `status` and `down` do: start, find and end the processes of a workspace.

Three things run: a Ray head (unless another cluster is joined), the control plane on a port of
loopback, and the edge on the public port, in front of it and of replicas. Each is known by process
id and start time, in `run/processes.json`, and only those are ever ended. A second `up` starts what
is missing. Knows no database and no HTTP route.
"""

from __future__ import annotations

import errno
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from inferay.config import PUBLIC_HOST, PUBLIC_PORT, Workspace
from inferay.edge_process import (
    LOOPBACK,
    carrying,
    end_edge,
    ensure_edge,
    prepare_edge,
    running_edge,
)
from inferay.errors import Conflict, InvalidInput, Unavailable
from inferay.processes import (
    choose_port,
    clean_environment,
    end,
    find,
    free_ports,
    keep_settings,
    last_line,
    lock,
    read_json,
    recorded,
    refusal_of,
    remember,
    spawn,
    wait_until_up,
    write_json,
    write_private,
)
from inferay.ray_head import RayHead, end_ray, ensure_ray, known_ray, running_ray

#: The control plane answers within a second or two; a migration may take longer.
CONTROL_START_S = 60.0


@dataclass(frozen=True)
class State:
    """What runs in a workspace.

    Attributes:
        control: The control plane's process, if it runs.
        edge: The edge's process, if it runs.
        ray: The Ray head's process, if `up` started one and it runs.
        head: Where Ray answers, if known.
        url: The public address.
    """

    control: psutil.Process | None
    edge: psutil.Process | None
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
    with lock(workspace):
        settings = read_json(workspace.home / "settings.json") | given
        ensure_ray(workspace, settings.get("ray_address"))
        _ensure_served(workspace, settings)
        keep_settings(workspace, given)   # only what works
        return look(workspace)


def look(workspace: Workspace) -> State:
    """Return what runs now."""
    return State(
        control=find(read_json(workspace.run / "processes.json"), "control"),
        edge=running_edge(workspace), ray=running_ray(workspace), head=known_ray(workspace),
        url=read_json(workspace.run / "control.json").get("url"),
    )


def down(workspace: Workspace) -> list[str]:
    """End what `up` started, by id; blocks until it is gone; idempotent.

    Returns:
        The names of what was ended.
    """
    if not workspace.run.exists():
        return []
    with lock(workspace):
        ended = []
        if end_edge(workspace):   # first: from now on nothing new comes in
            ended.append("edge")
        state = look(workspace)
        if state.control is not None:
            end(state.control)
            ended.append("control plane")
        state = look(workspace)   # it may have started Ray again until then
        if state.head is not None and state.head.temp_dir:
            if state.ray is not None:
                ended.append("Ray")
            end_ray(recorded(workspace, "ray"), state.head.temp_dir)
        for name in ("processes.json", "ray.json", "control.json", "edge.json"):
            (workspace.run / name).unlink(missing_ok=True)
        return ended


def revive_control(workspace: Workspace) -> bool:
    """Start the workspace's control plane again if it died; return whether it did; blocks.

    Does nothing while `up` or `down` work on the workspace.

    Raises:
        Unavailable: It did not start.
    """
    with lock(workspace, wait=False) as is_ours:
        state = look(workspace)
        if not is_ours or state.url is None or state.control is not None:
            return False
        _ensure_control(workspace, read_json(workspace.home / "settings.json"), state.url)
        return True


def prepare(workspace: Workspace) -> None:
    """Make the workspace's folders and tokens, private to the user; idempotent."""
    workspace.home.mkdir(parents=True, exist_ok=True)
    workspace.home.chmod(0o700)
    for folder in (workspace.secrets, workspace.run, workspace.logs, workspace.tls,
                   workspace.assets, workspace.datastores):
        folder.mkdir(mode=0o700, exist_ok=True)
    with lock(workspace):   # two that start at once must agree on the tokens
        for path in (workspace.admin_token, workspace.ray_token):
            if not path.exists():
                write_private(path, secrets.token_urlsafe(32).encode())
        prepare_edge(workspace)


def _ensure_served(workspace: Workspace, settings: Mapping[str, Any]) -> None:
    """Start the control plane and the edge in front of it, where they do not run."""
    carried = carrying(workspace)
    if carried is not None:   # scoring URIs stay as they are while requests come in
        host, port = carried.host, carried.port
    else:
        host = settings.get("host") or PUBLIC_HOST
        port = settings.get("port") or choose_port(host, settings.get("last_port", PUBLIC_PORT))
        _check_listens(host, port)
    url_host = LOOPBACK if host in ("0.0.0.0", "::") else host
    url = f"https://[{url_host}]:{port}" if ":" in url_host else f"https://{url_host}:{port}"
    control_port = _ensure_control(workspace, settings, url)
    ensure_edge(workspace, host, port, control_port)
    keep_settings(workspace, {"last_port": port, "control_port": control_port})


def _check_listens(host: str, port: int) -> None:
    refusal = refusal_of(host, port)
    if refusal is None:
        return
    if refusal.errno == errno.EADDRINUSE:
        raise Conflict(
            f"port {port} on {host} is taken by another program; choose one with --port",
            code="PortTaken",
        )
    raise InvalidInput(
        f"cannot listen on port {port} of {host}: {refusal.strerror}; choose an address of this "
        "machine with --host, and a port with --port",
        code="HostUnusable",
    )


def _ensure_control(workspace: Workspace, settings: Mapping[str, Any], url: str) -> int:
    """Start the control plane where it does not run; return its port on loopback."""
    state = look(workspace)
    kept = settings.get("control_port")
    if state.control is not None and kept and _control_answers(workspace, kept):
        return int(kept)
    if state.control is not None:
        end(state.control)
    port = choose_port(LOOPBACK, kept or free_ports(1)[0])
    log = workspace.logs / "control.log"
    command = [
        sys.executable, "-P", "-m", "inferay.control", "--port", str(port), "--url", url,
    ]
    environment = {**clean_environment(), "INFERAY_HOME": str(workspace.home)}
    if settings.get("workers_max"):
        environment["INFERAY_WORKERS_MAX"] = str(settings["workers_max"])
    process = spawn(command, log, environment)
    remember(workspace, "control", process)
    write_json(workspace.run / "control.json", {"url": url})
    if not wait_until_up(CONTROL_START_S, process, lambda: _control_answers(workspace, port)):
        end(process)
        raise Unavailable(f"the control plane did not start: {last_line(log)} (see {log})")
    return port


def _control_answers(workspace: Workspace, port: int) -> bool:
    import httpx

    token = workspace.admin_token.read_text().strip()
    try:
        answer = httpx.get(
            f"http://{LOOPBACK}:{port}/v1/computes", headers={"Authorization": f"Bearer {token}"},
            timeout=5.0, trust_env=False,
        )
    except httpx.HTTPError:
        return False
    return answer.status_code == 200
