"""A keep-alive connection that one copy at a time is sent over. Belongs to one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

from inferay.serve.mirror.bodies import ANSWER_KEPT_BYTES, Capture
from inferay.serve.mirror.exchange import Exchange
from inferay.serve.mirror.pairs import Answered, text_of

#: What the headers of an answer may take before it is no answer.
HEADERS_BYTES_MAX = 64 << 10

#: What the guard of a replica adds to the answer of a copy.
REVISION = b"x-inferay-revision"
TOOK_MS = b"x-inferay-took-ms"
_RUN_MS = b"x-ms-run-fn-exec-ms"

#: What the edge answers a copy that finds no room, as a client; then no replica has signed it.
_TOO_MANY = 429

#: Why a copy has no answer.
BUSY = "busy"
TIMED_OUT = "timed_out"
NOT_CONNECTED = "not_connected"
CLOSED = "connection_closed"
NOT_HTTP = "not_http"


#: Headers that belong to one connection, or that a copy has of its own.
_NOT_COPIED = frozenset({
    b"connection", b"content-length", b"expect", b"host", b"keep-alive", b"proxy-connection", b"te",
    b"trailer", b"transfer-encoding", b"upgrade",
})


@dataclass(frozen=True)
class Destination:
    """The edge's listener for copies, and the secret that it knows replicas by."""

    host: str
    port: int
    secret: str


@dataclass(frozen=True)
class Outcome:
    """What became of a copy.

    Attributes:
        answer: None where it failed, but for a time-out.
        failure: Why it failed, or None.
    """

    answer: Answered | None
    failure: str | None = None


def request_of(exchange: Exchange, target: str, to: Destination) -> bytes:
    """Return a copy, up to its body."""
    query = b"?" + exchange.query if exchange.query else b""
    path = f"/endpoints/{exchange.endpoint}{exchange.path}".encode("ascii", "backslashreplace")
    lines = [
        exchange.method.encode() + b" " + path + query + b" HTTP/1.1",
        f"host: {to.host}:{to.port}".encode(),
        f"x-inferay-edge: {to.secret}".encode(),
        f"x-inferay-shadow: {target}".encode(),
        f"x-inferay-request: {exchange.request_id}".encode(),
        b"content-length: %d" % len(exchange.request_body),
        *(name + b": " + value for name, value in exchange.headers if name not in _NOT_COPIED),
    ]
    return b"\r\n".join((*lines, b"", b""))


class Connection(asyncio.Protocol):
    """Sends a copy, and hands on what became of it; then takes the next one.

    Attributes:
        to: Where it leads.
        can_be_used: Whether the next copy may be sent over it.
        idle_since_s: When it became free.
    """

    def __init__(self, to: Destination) -> None:
        self.to = to
        self.can_be_used = True
        self.idle_since_s = 0.0
        self._transport: asyncio.Transport | None = None
        self._done: Callable[[Outcome], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def send(
        self, exchange: Exchange, target: str, timeout_s: float, done: Callable[[Outcome], None]
    ) -> None:
        """Send a copy; `done` is called once, later."""
        assert self._transport is not None
        assert self._done is None
        self._done = done
        self._timeout_s = timeout_s
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._headers_bytes = 0
        self._has_body = False
        self._capture = Capture(ANSWER_KEPT_BYTES)
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._time_out)
        self._began_s = time.perf_counter()
        self._transport.writelines((   # one system call
            request_of(exchange, target, self.to), exchange.request_body,
        ))

    def close(self) -> None:
        """Close it at once: what is in flight on it fails."""
        self.can_be_used = False
        self._finish(Outcome(None, CLOSED))
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Read on in the answer."""
        if self._done is None:   # nothing was asked
            self.close()
            return
        try:
            if not self._has_body:
                self._headers_bytes += len(data)
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(NOT_HTTP)
            return
        if not self._has_body and self._headers_bytes > HEADERS_BYTES_MAX:
            self._fail(NOT_HTTP)

    def connection_lost(self, _: Exception | None) -> None:
        """Fail, unless the end of the connection is the end of the answer."""
        self.can_be_used = False
        if self._done is None:
            return
        if self._has_body and not {b"content-length", b"transfer-encoding"} & self._headers.keys():
            self._answer()
        else:
            self._fail(CLOSED)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the answer."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """See whether this is the answer, or only an interim one."""
        self._has_body = self._parser.get_status_code() >= 200

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the answer's body."""
        self._capture.add(piece)

    def on_message_complete(self) -> None:
        """Hand on the answer."""
        if not self._has_body:
            self._headers.clear()
            return
        assert self._transport is not None
        is_sent = self._transport.get_write_buffer_size() == 0
        self.can_be_used = is_sent and self._parser.should_keep_alive()
        self._answer()

    def _answer(self) -> None:
        if self._parser.get_status_code() == _TOO_MANY and REVISION not in self._headers:
            # It says something of how fast copies are sent, and nothing of the shadow's answers.
            self._finish(Outcome(None, BUSY))
            return
        took_s = time.perf_counter() - self._began_s
        told_s = _seconds(self._headers.get(TOOK_MS))
        self._finish(Outcome(Answered(
            self._parser.get_status_code(), took_s if told_s is None else told_s,
            _seconds(self._headers.get(_RUN_MS)), text_of(self._headers.get(b"content-type")),
            self._capture.body(), text_of(self._headers.get(REVISION)),
        )))

    def _time_out(self) -> None:
        empty = Capture(0).body()
        self.can_be_used = False
        self._finish(Outcome(Answered(None, self._timeout_s, None, None, empty), TIMED_OUT))
        self.close()

    def _fail(self, reason: str) -> None:
        self.can_be_used = False
        self._finish(Outcome(None, reason))
        self.close()

    def _finish(self, outcome: Outcome) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        done(outcome)


def _seconds(milliseconds: bytes | None) -> float | None:
    """Return what a header says; None if it says no duration."""
    try:
        found = float(milliseconds or b"") / 1e3
    except ValueError:
        return None
    return found if 0 <= found < 86400 else None
