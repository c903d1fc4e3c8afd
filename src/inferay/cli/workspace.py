"""`up`, `status`, `logs`, `down`, `ray-env` and `token`: the workspace itself."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from inferay.cli.connection import connect
from inferay.cli.parser import Groups, add_yes, confirm, warn
from inferay.config import Workspace
from inferay.engine.storage import Access
from inferay.errors import NotFound, Unavailable


def add(groups: Groups) -> None:
    """Add the commands."""
    up = groups.command("up", _up, "start Ray, the control plane and the edge of the workspace")
    up.add_argument("--host", help="address that the public port binds to (127.0.0.1)")
    up.add_argument("--port", type=_count, help="the public port")
    up.add_argument("--ray-address", help="http://HOST:PORT of a running Ray's dashboard to join")
    up.add_argument("--workers-max", type=_count, help="workers of one job on this machine at most")
    groups.command("status", _status, "say what runs where")
    logs = groups.command("logs", _logs, "show the last lines of a log")
    logs.add_argument("name", nargs="?", default="control",
                      help="control, edge, ray, or the name of a job (default: control)")
    logs.add_argument("-l", "--lines", type=int, default=50)
    groups.command("down", _down, "end exactly what `up` started")
    groups.command("ray-env", _ray_env, "print variables for Ray's own tools: eval \"$(…)\"")
    token = groups.group("token", "credentials for others than this machine's user")
    create = token.command("create", _create_token, "make a token and print it once")
    create.add_argument("-n", "--name", required=True)
    create.add_argument("--role", required=True, choices=["admin", "reader", "scorer"])
    create.add_argument("-e", "--endpoint-name", help="the one endpoint that a scorer may invoke")
    create.add_argument("--days", type=float, help="how long it is valid (for ever)")
    token.command("list", _list_tokens, "list tokens, without their secrets")
    delete = token.command("delete", _delete_token, "delete a token: it is refused from then on")
    delete.add_argument("-n", "--name", required=True)
    add_yes(delete)


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 65535, got {text}")
    return number


def _up(options: argparse.Namespace) -> None:
    from inferay import launcher

    Access.from_environment(os.environ)   # what is wrong there would fail each job
    workspace = Workspace.from_environment()
    before = launcher.look(workspace)
    if None in (before.control, before.edge, before.ray):
        print(f"starting in {workspace.home} …", file=sys.stderr)
    given = (options.host, options.port, options.ray_address, options.workers_max)
    if before.control is not None and any(value is not None for value in given):
        warn(options, ["what runs goes on as it is; new settings hold after `inferay down` and "
                       "`inferay up`"])
    state = launcher.up(
        workspace, host=options.host, port=options.port, ray_address=options.ray_address,
        workers_max=options.workers_max,
    )
    _tell(workspace, state)


def _status(options: argparse.Namespace) -> Any:
    from inferay import launcher

    workspace = Workspace.from_environment()
    state = launcher.look(workspace)
    if options.output is not None or options.query:
        return connect(options).http.get("/v1/status")
    _tell(workspace, state)
    if state.control is None:
        raise Unavailable("the control plane does not run; start it with `inferay up`")
    found = connect(options).http.get("/v1/status")
    counts, ray = found["counts"], found["ray"]
    print(f"{counts['endpoints']} endpoints, {counts['deployments']} deployments, "
          f"{counts['liveJobs']} live jobs; Ray is {ray['state']}")
    return None


def _tell(workspace: Workspace, state: Any) -> None:
    control = f"pid {state.control.pid}" if state.control else "not running"
    edge = f"pid {state.edge.pid}" if state.edge else "not running"
    print(f"edge           {state.url or '-'} ({edge})")
    print(f"control plane  behind it ({control})")
    if state.head is None:
        print("Ray            not running")
    else:
        pid = f"pid {state.ray.pid}" if state.ray else "not ours" if not state.head.temp_dir \
            else "not running"
        print(f"Ray            {state.head.dashboard} ({pid})")
    print(f"workspace      {workspace.home}")
    print(f"CA to trust    {workspace.ca_certificate}")
    print(f"token          {workspace.admin_token}")


def _logs(options: argparse.Namespace) -> None:
    workspace = Workspace.from_environment()
    if options.name in ("control", "edge", "ray"):
        path = workspace.logs / f"{options.name}.log"
        if not path.exists():
            raise NotFound(f"there is no log {path}; run `inferay up` first")
        _print_last(path, options.lines)
        return
    job = connect(options).jobs.get(options.name)
    for name, size in job.logs().items():
        print(f"==> {name} <==")
        text = job.log(name, max(0, size - 65536)).decode(errors="replace")
        print("\n".join(text.splitlines()[-options.lines:]))


def _print_last(path: Path, lines: int) -> None:
    with open(path, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - (1 << 20)))
        text = file.read().decode(errors="replace")
    print("\n".join(text.splitlines()[-lines:]))


def _down(options: argparse.Namespace) -> None:
    from inferay import launcher

    ended = launcher.down(Workspace.from_environment())
    print(f"ended: {', '.join(ended)}" if ended else "nothing was running")


def _ray_env(options: argparse.Namespace) -> None:
    from inferay.ray_head import known_ray, ray_environment

    head = known_ray(Workspace.from_environment())
    if head is None:
        raise Unavailable("no Ray runs; start it with `inferay up`")
    for name, value in ray_environment(head).items():
        print(f"export {name}={shlex.quote(value)}")


def _create_token(options: argparse.Namespace) -> Any:
    return connect(options).http.post("/v1/tokens", {
        "name": options.name, "role": options.role, "endpoint": options.endpoint_name,
        "days": options.days,
    })


def _list_tokens(options: argparse.Namespace) -> Any:
    return connect(options).http.get("/v1/tokens")["value"]


def _delete_token(options: argparse.Namespace) -> None:
    from inferay.client.http import segment

    confirm(options, f"token '{options.name}'")
    connect(options).http.delete(f"/v1/tokens/{segment(options.name)}")
