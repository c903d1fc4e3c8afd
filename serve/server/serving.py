"""An inference server that listens: uvicorn in a thread of this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from inferay.errors import Unavailable
from inferay.serve.server.app import Receive, Scope, Send
from inferay.serve.server.protocol import Protocol

#: What answers: the inference server's app, or what stands around it.
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Connections that wait to be accepted.
BACKLOG = 2048

#: How long an idle connection stays open: longer than the edge keeps its own, so that the edge is
#: the one that closes and no request meets a connection that closes.
KEEP_ALIVE_S = 75

START_S = 10.0


class Serving:
    """The app on a port; `start` and `stop` block until it listens and has ended.

    Args:
        app: What answers.
        host: The address to listen on.
        port: 0 for a free one.

    Raises:
        Unavailable: The port is taken.
    """

    def __init__(self, app: App, host: str, port: int) -> None:
        try:
            self._socket = socket.create_server((host, port), backlog=BACKLOG)
        except OSError as error:
            said = f"cannot listen on port {port} of {host}: {error}"
            raise Unavailable(said, code="PortInUse") from None
        self.port: int = self._socket.getsockname()[1]
        # No log_config: uvicorn's default calls logging.config.dictConfig, which closes the
        # handlers of Ray Serve's loggers (a restarted controller then stops every replica).
        config = uvicorn.Config(
            app, http=Protocol, loop="uvloop", ws="none", log_config=None, access_log=False,
            server_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_S,
            lifespan="off",
        )
        self._server = _Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="server", daemon=True
        )

    def start(self) -> None:
        """Listen.

        Raises:
            Unavailable: It did not, in time.
        """
        self._thread.start()
        if not self._server.has_started.wait(START_S):
            raise Unavailable(f"the inference server did not listen within {START_S:g} s")

    def stop(self, *, timeout_s: float) -> None:
        """Accept no more, answer what is in flight, and end; idempotent.

        Args:
            timeout_s: After this, what is still in flight is cut off.
        """
        self._server.should_exit = True
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(START_S)


class _Server(uvicorn.Server):
    """Says when it listens. In a thread, uvicorn leaves the process's signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.has_started.set()
