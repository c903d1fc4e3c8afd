"""The workspace's own edge: started on the public port, found, handed over, ended, revived.

HAProxy, which carries the traffic, outlives the edge process; a new one takes it over.
"""

from __future__ import annotations

import secrets
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import psutil

from inferay.config import Workspace
from inferay.errors import InferayError, Unavailable
from inferay.processes import (
    STOP_WAIT_S,
    Process,
    choose_port,
    clean_environment,
    end,
    find,
    free_ports,
    last_line,
    lock,
    read_json,
    remember,
    spawn,
    wait_until_gone,
    wait_until_up,
    write_json,
    write_private,
)
from inferay.serve.edge.config import EdgeConfig
from inferay.tls import ensure_tls

#: HAProxy starts in a tenth of a second; Python and a loaded machine take longer.
EDGE_START_S = 60.0

#: Replicas and the control plane reach the edge process here; it is on this machine.
LOOPBACK = "127.0.0.1"


def prepare_edge(workspace: Workspace) -> None:
    """Make the edge's folder and secrets, private to the user; idempotent."""
    workspace.edge.mkdir(mode=0o700, exist_ok=True)
    for path in (workspace.edge_secret, workspace.registration_key, workspace.token_key):
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32).encode())


def running_edge(workspace: Workspace) -> psutil.Process | None:
    """Return the process of the workspace's own edge, if it runs."""
    return find(read_json(workspace.run / "processes.json"), "edge")


def edge_url(workspace: Workspace) -> str | None:
    """Return where the edge's management API answers, if one was ever started."""
    found: str | None = read_json(workspace.run / "edge.json").get("url")
    return found


def carrying(workspace: Workspace) -> EdgeConfig | None:
    """Return how the edge is configured if it, or the HAProxy that it left, runs."""
    path = workspace.edge / "config.json"
    if running_edge(workspace) is None and _haproxy(workspace) is None:
        return None
    return EdgeConfig.read(path) if path.exists() else None


def ensure_edge(workspace: Workspace, host: str, port: int, control_port: int | None) -> None:
    """Start an edge on the public port if none runs so; blocks until it answers; idempotent.

    With a control plane behind it the edge keeps that up, too.

    What HAProxy carries goes on: an edge process with other settings reloads it.

    Raises:
        Unavailable: It did not start; the message is its own.
    """
    wanted = _config(workspace, host, port, control_port)
    path = workspace.edge / "config.json"
    process = running_edge(workspace)
    if process is not None and read_json(path) == asdict(wanted) and _answers(wanted):
        return
    if process is not None:
        process.send_signal(signal.SIGUSR1)   # HAProxy stays
        wait_until_gone(process, STOP_WAIT_S)
    write_json(path, asdict(wanted))
    _start(workspace, wanted)


def revive_edge(workspace: Workspace) -> bool:
    """Start the workspace's edge process again if it died; return whether it did.

    Does nothing while `up` or `down` work on the workspace.

    Raises:
        Unavailable: It did not start.
    """
    with lock(workspace, wait=False) as is_ours:
        path = workspace.edge / "config.json"
        is_wanted = is_ours and edge_url(workspace) is not None and path.exists()
        if not is_wanted or running_edge(workspace) is not None:
            return False
        _start(workspace, EdgeConfig.read(path))
        return True


def renew_certificate(workspace: Workspace) -> None:
    """Make the server's certificate anew if it nears its end; the edge takes it over by itself.

    Does nothing while `up` or `down` work on the workspace.
    """
    with lock(workspace, wait=False) as is_ours:
        path = workspace.edge / "config.json"
        if is_ours and path.exists():
            ensure_tls(workspace, EdgeConfig.read(path).host)


def end_edge(workspace: Workspace) -> bool:
    """End the edge and its HAProxy; return whether one ran; blocks until they are gone."""
    process = running_edge(workspace)
    if process is not None:
        end(process)
    haproxy = _haproxy(workspace)
    if haproxy is not None:   # its edge was killed, or did not end it in time
        whole = [haproxy, *haproxy.children(recursive=True)]
        for one in whole:
            one.kill()
        for one in whole:
            wait_until_gone(one, STOP_WAIT_S)
    (workspace.edge / "state.json").unlink(missing_ok=True)
    return process is not None or haproxy is not None


def _haproxy(workspace: Workspace) -> psutil.Process | None:
    try:
        known = read_json(workspace.edge / "state.json").get("haproxy")
    except InferayError:   # it is damaged: an edge begins anew, and says so
        known = None
    return Process(**known).find() if known else None


def _config(workspace: Workspace, host: str, port: int, control_port: int | None) -> EdgeConfig:
    """Return the configuration for these ports; replicas know the others, so they stay."""
    path = workspace.edge / "config.json"
    kept, carried = read_json(path), carrying(workspace)
    preferred = {name: kept.get(name) or free_ports(1)[0] for name in
                 ("management_port", "mirror_port")}
    ports = preferred if carried else {
        name: choose_port(LOOPBACK, one) for name, one in preferred.items()
    }
    tls = ensure_tls(workspace, host)
    return EdgeConfig(
        folder=str(workspace.edge), host=host, port=port, certificate=str(tls.certificate),
        key=str(tls.key), management_host=LOOPBACK, admin_secret=str(workspace.edge_secret),
        registration_key=str(workspace.registration_key), token_key=str(workspace.token_key),
        control_port=control_port, **ports,
    )


def _start(workspace: Workspace, config: EdgeConfig) -> None:
    log = workspace.logs / "edge.log"
    module = "inferay.serve.edge" if config.control_port is None else "inferay.keeper"
    process = spawn(
        [sys.executable, "-P", "-m", module, str(workspace.edge / "config.json")],
        log, {**clean_environment(), "INFERAY_HOME": str(workspace.home)},
    )
    remember(workspace, "edge", process)
    write_json(workspace.run / "edge.json", {"url": _url(config)})
    if not wait_until_up(EDGE_START_S, process, lambda: _answers(config)):
        end(process)
        raise Unavailable(f"the edge did not start: {last_line(log)} (see {log})")


def _url(config: EdgeConfig) -> str:
    return f"http://{config.management_host}:{config.management_port}"


def _answers(config: EdgeConfig) -> bool:
    import httpx

    secret = Path(config.admin_secret).read_text().strip()
    try:
        answer = httpx.get(
            f"{_url(config)}/state", headers={"Authorization": f"Bearer {secret}"}, timeout=5.0,
            trust_env=False,
        )
    except httpx.HTTPError:
        return False
    return answer.status_code == 200
