"""`python -m inferay.serve.edge CONFIG`: an edge process; CONFIG is a file of `EdgeConfig`.

It is up when its management API answers. SIGTERM ends it and HAProxy, SIGUSR1 ends it alone: the
next one takes HAProxy over, and no request notices. SIGHUP reloads HAProxy.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from inferay.errors import InferayError, exit_code
from inferay.serve.edge.api import create_api
from inferay.serve.edge.config import EdgeConfig
from inferay.serve.edge.edge import Edge

log = logging.getLogger("inferay.edge")

#: How often HAProxy's process is looked at: what a crash of it costs beside its start.
LOOK_S = 0.1
#: How often everything is compared with what it shall be, of these looks.
LOOKS_PER_TURN = 10


def main(path: Path) -> int:
    """Keep the edge until a signal; return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    config = EdgeConfig.read(path)
    wanted: list[int] = []
    has_ended, shall_reload = threading.Event(), threading.Event()

    def end(number: int, frame: object) -> None:
        wanted.append(number)
        has_ended.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, end)
    signal.signal(signal.SIGHUP, lambda *_: shall_reload.set())
    try:
        listener = socket.create_server((config.management_host, config.management_port))
        edge = Edge(config)
        edge.open()
    except (InferayError, OSError) as error:
        log.error("%s", error.message if isinstance(error, InferayError) else error)
        return exit_code(error) if isinstance(error, InferayError) else 1
    server = uvicorn.Server(uvicorn.Config(
        create_api(edge), log_config=None, access_log=False, server_header=False,
        proxy_headers=False, lifespan="off", timeout_graceful_shutdown=2, ws="none",
    ))
    threading.Thread(
        target=server.run, args=([listener],), name="api", daemon=True
    ).start()
    looks = 0
    while not has_ended.wait(LOOK_S):
        looks += 1
        _look(edge, shall_reload, is_turn=looks % LOOKS_PER_TURN == 0)
    server.should_exit = True
    if wanted[0] != signal.SIGUSR1:
        edge.close()
    return 0


def _look(edge: Edge, shall_reload: threading.Event, *, is_turn: bool) -> None:
    try:
        if shall_reload.is_set():
            shall_reload.clear()
            edge.reload()
        if is_turn or not edge.haproxy_runs():
            edge.turn()
    except InferayError as error:   # HAProxy may be starting; the next look tries again
        log.error("%s", error.message)
    except Exception:   # the care must outlive any one trouble
        log.exception("a turn of the edge failed")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
