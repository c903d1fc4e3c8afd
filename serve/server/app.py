"""The inference server as an ASGI app: Azure's container contract over one scoring script."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from inferay import __version__
from inferay.serve.server.answers import WITHOUT_BODY
from inferay.serve.server.calls import Batching, Call, Calls, CutShort, Overdue
from inferay.serve.server.deadlines import Deadlines
from inferay.serve.server.entry import Handler
from inferay.serve.server.gate import Gate, TooBusy
from inferay.serve.server.http import Answer, Headers, Refused, Request, error_answer
from inferay.serve.server.limits import Limits
from inferay.serve.server.request_ids import NAMES as ID_HEADERS
from inferay.serve.server.request_ids import echoed_ids
from inferay.serve.server.request_log import RequestLog
from inferay.serve.server.swagger import VERSIONS

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_log = logging.getLogger("inferay.server")

_TEXT = b"text/plain; charset=utf-8"
_SERVER = (b"x-ms-server-version", f"inferay/{__version__}".encode())
_CLOSE = (b"connection", b"close")

#: Why there is no result of `run()`, for the edge, which takes the header off.
REASON = b"x-inferay-reason"
TIMED_OUT = (REASON, b"request_timeout")
BUSY = (REASON, b"too_many_pending_requests")
TOO_LARGE = (REASON, b"body_too_large")

_METHODS = {"/": ("GET", "HEAD"), "/swagger.json": ("GET", "HEAD")}
_NO_ROUTE = (
    "The requested URL was not found on the server. If you entered the URL manually please check "
    "your spelling and try again."
)
_NO_METHOD = "The method is not allowed for the requested URL."


class InferenceApp:
    """Answers `/`, `/swagger.json`, and what the entry does: `/score`.

    Args:
        entry: The user's `run()`, whose `init()` is done, or a model.
        limits: How much is taken on at once.
        code_dir: Of the script, for the user's tracebacks.
        swagger: Documents by version, from `swagger.documents`.
        batching: None for a call of `run()` for each request.
    """

    def __init__(
        self, entry: Handler, limits: Limits, *, code_dir: Path, swagger: Mapping[str, bytes],
        batching: Batching | None = None,
    ) -> None:
        self._entry = entry
        self._limits = limits
        self._swagger = swagger
        self._gate = Gate(
            limits.concurrent_requests_max,
            waiting_max=limits.waiting_max, wait_s=limits.queue_wait_s,
        )
        self._calls = Calls(entry, limits.concurrent_requests_max, code_dir, batching)
        self._deadlines = Deadlines(limits.request_timeout_s, Call.expire)
        self._request_log = RequestLog(_log)
        self._open = 0
        self._overdue = 0

    @property
    def in_flight(self) -> int:
        """Requests that run or wait."""
        return self._gate.running + self._gate.waiting

    @property
    def is_stuck(self) -> bool:
        """Whether every place is held by a call that has exceeded its time."""
        return self._overdue >= self._limits.concurrent_requests_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or ASGI's lifespan."""
        if scope["type"] == "lifespan":
            await _serve_lifespan(receive, send)
            return
        if scope["type"] != "http":   # a WebSocket: refused by never accepting it
            await send({"type": "websocket.close", "code": 1008})
            return
        began_s = time.perf_counter()
        ids: Headers = []
        leave: Callable[[], None] = _nothing
        try:
            ids = echoed_ids(scope["headers"])
            answer, leave = await self._answer(scope, receive)
        except Refused as refused:
            ids = ids or refused.headers
            extra = [one for one in refused.headers if one not in ids]
            answer = error_answer(
                refused.status, refused.message, headers=extra, key=self._entry.error_key
            )
        try:
            await _send_answer(receive, send, answer, ids, is_head=scope["method"] == "HEAD")
        finally:
            leave()
        if scope["path"] != "/":
            took_s = time.perf_counter() - began_s
            self._request_log.add(scope["method"], _target(scope), answer.status, took_s)

    def close(self) -> None:
        """Log what has not been logged yet; the event loop has ended."""
        self._request_log.flush()

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[Answer, Callable[[], None]]:
        """Return the answer, and what is to be called when it is sent."""
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        methods = _METHODS.get(path) or self._entry.methods(path)
        if methods is None:
            raise Refused(404, _NO_ROUTE)
        if scope["method"] not in methods:
            raise Refused(405, _NO_METHOD, headers=[(b"allow", ", ".join(methods).encode())])
        if path == "/" or path in self._entry.health_paths:
            return self._health(), _nothing
        if path == "/swagger.json":
            return self._describe(scope["query_string"]), _nothing
        request = await self._read(scope, receive, path)
        told = self._entry.told(request)
        return (told, _nothing) if told is not None else await self._score(request)

    def _health(self) -> Answer:
        if self.is_stuck:
            return Answer(503, b"Unhealthy: every call of run() has exceeded its time", _TEXT)
        return Answer(200, b"Healthy", _TEXT)

    def _describe(self, query: bytes) -> Answer:
        asked = parse_qs(query.decode("latin-1")).get("version", ["2"])[0]
        supported = ", ".join(sorted(self._swagger))
        if asked not in VERSIONS:
            raise Refused(
                404, f"Swagger version [{asked}] is not valid. Supported versions: [{supported}]."
            )
        document = self._swagger.get(VERSIONS[asked])
        if document is None:
            raise Refused(
                404, f"Swagger version [{asked}] is not supported for the scoring script. "
                f"Supported swagger versions: [{supported}]."
            )
        return Answer(200, document, has_failed=False)

    async def _read(self, scope: Scope, receive: Receive, path: str) -> Request:
        if self._open >= self._limits.open_max:
            raise Refused(503, "Too many requests are open", headers=[BUSY, *self._retry_after])
        self._open += 1
        try:
            body = await _read_body(scope, receive, self._limits.body_bytes_max)
        finally:
            self._open -= 1
        return Request(
            scope["method"], path, scope["query_string"], scope["headers"], body,
            scope.get("scheme", "http"), scope.get("root_path", ""),
        )

    async def _score(self, request: Request) -> tuple[Answer, Callable[[], None]]:
        try:
            await self._gate.enter()
        except TooBusy as busy:
            raise Refused(
                503, f"Too many requests at once: {busy}", headers=[BUSY, *self._retry_after]
            ) from None
        call = self._calls.start(request, self._call_ended)
        self._deadlines.add(call)
        try:
            answer = await call.answer
        except Overdue:
            self._leave(call)
            took_ms = self._limits.request_timeout_s * 1e3
            _log.error("run() has exceeded request_timeout_ms, %g ms", took_ms)
            answer = error_answer(
                500, f"Scoring timeout after {took_ms:g} ms", headers=[TIMED_OUT], has_failed=True,
                key=self._entry.error_key,
            )
            return answer, _nothing
        except asyncio.CancelledError:
            self._leave(call)
            raise
        finally:
            self._deadlines.discard(call)
        return answer, self._gate.leave if call.is_streamed else _nothing

    def _leave(self, call: Call) -> None:
        """Wait for a call no longer. It keeps its place until it ends."""
        if not call.is_over:
            call.is_left = True
            self._overdue += 1
            call.cancel()
        elif call.is_streamed:
            self._gate.leave()

    def _call_ended(self, call: Call) -> None:
        """Give its place back, unless its answer is still to be made in the place's thread."""
        if call.is_left:
            self._overdue -= 1
            self._gate.leave()
        elif not call.is_streamed:
            self._gate.leave()

    @property
    def _retry_after(self) -> Headers:
        return [(b"retry-after", str(max(1, math.ceil(self._limits.queue_wait_s))).encode())]


async def _read_body(scope: Scope, receive: Receive, bytes_max: int) -> bytes:
    """Return the body.

    Raises:
        Refused: It is too large (413), or its client has gone.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > bytes_max:
            raise _too_large(bytes_max)
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and message["type"] == "http.request":
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        return body
    pieces, size_bytes = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        pieces.append(message.get("body", b""))
        size_bytes += len(pieces[-1])
        if size_bytes > bytes_max:
            raise _too_large(bytes_max)
    if message["type"] == "http.disconnect":
        raise Refused(400, "The client has gone before its request was read")
    return b"".join(pieces)


def _too_large(bytes_max: int) -> Refused:
    said = f"The body of a request must not exceed {bytes_max} bytes"
    return Refused(413, said, headers=[_CLOSE, TOO_LARGE])


async def _send_answer(
    receive: Receive, send: Send, answer: Answer, ids: Headers, *, is_head: bool
) -> None:
    headers = [one for one in answer.headers if one[0] not in ID_HEADERS]
    if answer.content_type is not None:
        headers.append((b"content-type", answer.content_type))
    if answer.has_failed is not None:
        headers.append((b"x-ms-run-function-failed", str(answer.has_failed).encode()))
    if answer.run_s is not None:
        headers.append((b"x-ms-run-fn-exec-ms", f"{answer.run_s * 1e3:.3f}".encode()))
    headers.append(_SERVER)
    headers += ids
    body = answer.body
    if answer.trailers is not None and isinstance(body, bytes):
        await send({
            "type": "http.response.start", "status": answer.status, "headers": headers,
            "trailers": True,
        })
        await send({"type": "http.response.body", "body": body})
        await send({"type": "http.response.trailers", "headers": answer.trailers})
        return
    if isinstance(body, bytes):
        if answer.status not in WITHOUT_BODY:
            headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if is_head else body})
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await _send_pieces(receive, send, body)


async def _send_pieces(receive: Receive, send: Send, body: AsyncGenerator[bytes, None]) -> None:
    """Send what the script makes, until it ends, fails, or nobody reads it any more."""
    gone = asyncio.ensure_future(_wait_until_gone(receive))   # `send` does not tell
    try:
        async with aclosing(body) as pieces:
            async for piece in pieces:
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    except CutShort:   # without an end, so that the client sees that there is more
        return
    finally:
        gone.cancel()
    await send({"type": "http.response.body", "body": b""})


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _serve_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _target(scope: Scope) -> str:
    """Return the path as it came: with its percent signs, so that it stays one line."""
    path: bytes = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
    query: bytes = scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")


def _nothing() -> None:
    pass
