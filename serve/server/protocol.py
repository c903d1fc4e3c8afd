"""uvicorn's HTTP protocol: one system call for an answer, and no header after the headers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    """Sends the head of an answer together with its body, and drops trailers of a request."""

    def connection_made(   # type: ignore[override]
        self, transport: asyncio.Transport
    ) -> None:
        """Begin a connection."""
        super().connection_made(cast(asyncio.Transport, JoiningTransport(transport, self.loop)))

    def on_headers_complete(self) -> None:
        """Begin the request with the headers of now.

        The parser tells of trailers as of headers, and uvicorn adds them to the same list. The edge
        takes what clients may not say out of the headers only.
        """
        super().on_headers_complete()
        self.headers = []


class JoiningTransport:
    """A transport whose first write waits for what follows.

    What nothing follows goes out alone, one turn of the event loop later: the head of an answer
    whose first piece is still to be made.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: bytes | None = None

    def write(self, data: bytes) -> None:
        """Send the data, with what was held if there is any."""
        held, self._held = self._held, None
        if held is not None:
            self._transport.writelines((held, data))
        else:
            self._held = data
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """End the connection when all is sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
