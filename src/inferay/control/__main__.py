"""`python -m inferay.control`: the control plane's process, as `inferay up` starts it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import uvicorn

from inferay.config import Workspace
from inferay.control.app import create_app
from inferay.control.context import Context, Machine
from inferay.control.database import Database
from inferay.control.endpoints import ensure_datastores
from inferay.control.reconcile import Reconciler
from inferay.control.tokens import ensure_admin
from inferay.edge_process import edge_url
from inferay.engine.ray_dashboard import RayAddress
from inferay.errors import InferayError, Unavailable, exit_code
from inferay.jobs.ray_jobs import RayJobs
from inferay.ray_head import RayHead, known_ray
from inferay.serve.applications import ServeApplications
from inferay.serve.edge.client import EdgeClient

T = TypeVar("T")

#: How long requests under way get when the control plane is told to stop.
SHUTDOWN_S = 5

#: Longer than the edge keeps an idle connection: no request meets one that closes.
KEEP_ALIVE_S = 75


def main() -> int:
    """Serve until told to stop; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m inferay.control")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--url", required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for name in ("httpx", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        serve(options.port, options.url)
    except InferayError as error:
        print(error.message, file=sys.stderr)
        return exit_code(error)
    return 0


def serve(port: int, url: str) -> None:
    """Open the workspace, start the loop, serve behind the edge until SIGTERM.

    Raises:
        InferayError: The workspace cannot be opened.
    """
    workspace = Workspace.from_environment()
    url_of_database = os.environ.get("INFERAY_DATABASE_URL")
    database = Database(url_of_database) if url_of_database else Database.in_file(
        workspace.database
    )
    database.migrate()
    with database.write() as session:
        ensure_admin(session, workspace.admin_token)
        ensure_datastores(session, workspace)
    head = known_ray(workspace)
    workers_max = os.environ.get("INFERAY_WORKERS_MAX")
    context = Context(
        database=database, workspace=workspace, url=url, machine=Machine.this(),
        workers_max=int(workers_max) if workers_max else None,
        is_embedded=head is None or bool(head.temp_dir), ray=_of_head(workspace, RayJobs),
        serve=_of_head(workspace, ServeApplications), edge=_edge_of(workspace),
    )
    reconciler = Reconciler(context)
    reconciler.start()
    try:
        uvicorn.run(
            create_app(context), host="127.0.0.1", port=port, log_config=None, access_log=False,
            timeout_graceful_shutdown=SHUTDOWN_S, server_header=False, proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    finally:
        reconciler.stop()
        database.close()


def _of_head(workspace: Workspace, make: Callable[[RayAddress], T]) -> Callable[[], T]:
    """Return a function that gives an API of the Ray head of now."""
    known: dict[RayHead, T] = {}
    lock = threading.Lock()

    def api() -> T:
        head = known_ray(workspace)
        if head is None:
            raise Unavailable("no Ray runs; run `inferay up`", code="RayUnavailable")
        with lock:
            if head not in known:
                known.clear()   # another thread may be using it: it is closed when nobody does
                token = Path(head.token_path) if head.token_path else None
                known[head] = make(RayAddress(head.gcs, head.dashboard, token))
            return known[head]

    return api


def _edge_of(workspace: Workspace) -> Callable[[], EdgeClient]:
    """Return a function that gives the management API of the edge of now."""
    known: dict[str, EdgeClient] = {}
    lock = threading.Lock()

    def edge() -> EdgeClient:
        url = edge_url(workspace)
        if url is None:
            raise Unavailable("no edge runs; run `inferay up`", code="EdgeUnavailable")
        with lock:
            if url not in known:
                known.clear()   # as above
                known[url] = EdgeClient(url, workspace.edge_secret.read_text().strip())
            return known[url]

    return edge


if __name__ == "__main__":
    sys.exit(main())
