"""uvicorn's HTTP protocol: one system call for an answer, and trailers where gRPC needs them."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class Protocol(HttpToolsProtocol):
    """Sends the head of an answer together with its body, and drops trailers of a request.

    An answer may have trailers, by ASGI's extension `http.response.trailers`.
    """

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
        # uvicorn makes the object itself; its task begins after this turn of the event loop.
        self.cycle.__class__ = _Cycle


class _Cycle(RequestResponseCycle):
    """A request and its answer, which may have trailers."""

    has_trailers = False

    async def send(self, message: MutableMapping[str, Any]) -> None:   # type: ignore[override]
        kind = message["type"]
        if kind == "http.response.trailers":
            self._end(message["headers"])
            return
        if kind == "http.response.start":
            self.has_trailers = bool(message.get("trailers"))
        elif self.has_trailers:   # the body's end is not the answer's
            message = {**message, "more_body": True}
        await super().send(cast(Any, message))

    def _end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """End a chunked answer, as `send` does where there are no trailers."""
        if self.disconnected:
            return
        lines = b"".join(b"%b: %b\r\n" % one for one in trailers)
        self.transport.write(b"0\r\n" + lines + b"\r\n")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


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
