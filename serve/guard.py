"""What stands between the edge and the inference server: who may call it, and what is marked.

Only the edge knows the secret, so nobody reaches a replica's port past keys and limits. Nothing of
an `x-inferay-` header reaches the user's code. A request without a mark is neither copied nor
kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import MutableMapping
from hmac import compare_digest
from typing import Any, Protocol

from inferay.serve.meter import Meter
from inferay.serve.mirror.exchange import Exchange
from inferay.serve.server.app import InferenceApp, Receive, Scope, Send
from inferay.serve.server.http import JSON, Headers, error_answer

PREFIX = b"x-inferay-"
SECRET = b"x-inferay-edge"
REQUEST_ID = b"x-inferay-request"
TARGETS = b"x-inferay-mirror"
SHADOW = b"x-inferay-shadow"

#: What the answer to a copy says, for the pair that it is one side of.
REVISION = b"x-inferay-revision"
TOOK_MS = b"x-inferay-took-ms"

#: How long a request may wait for the answer of a registration that is under way.
ADMISSION_S = 5.0
_LOOK_S = 0.005

#: Requests that wait for it at once; a stranger's flood shall not.
ADMISSION_MAX = 256

_RUN_MS = b"x-ms-run-fn-exec-ms"


class Mirror(Protocol):
    """What sends copies of live requests to the deployments that shadow."""

    def offer(self, exchange: Exchange) -> None:
        """Take a finished exchange, or drop it; never blocks, never raises."""


class Guard:
    """An ASGI app around the inference server's.

    Attributes:
        meter: What is in flight, health checks apart.
        is_expecting: Whether a registration is under way: the edge may send requests before its
            answer, with the secret, is here. Whoever registers sets it.

    Args:
        app: What answers.
        endpoint: Of the deployment.
        deployment: Its name.
        revision: Of the deployment: the answer of a copy names it.
        mirror: What gets the exchanges that the edge has marked.
        bytes_max: Of a request or an answer; what is larger is not mirrored.
    """

    def __init__(
        self, app: InferenceApp, *, endpoint: str, deployment: str, revision: str, mirror: Mirror,
        bytes_max: int,
    ) -> None:
        self._app = app
        self._endpoint = endpoint
        self._deployment = deployment
        self._revision = revision.encode()
        self._mirror = mirror
        self._bytes_max = bytes_max
        self._secret: bytes | None = None
        self.meter = Meter()
        self.is_expecting = False
        self._waiting = 0

    def admit(self, secret: str) -> None:
        """Answer requests that carry the secret, from now on; any thread."""
        self._secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what the edge sends."""
        if scope["type"] != "http":   # lifespan; a WebSocket is refused by the server
            await self._app(scope, receive, send)
            return
        marks: dict[bytes, bytes] = {}
        headers: Headers = []
        for header in scope["headers"]:
            if header[0].startswith(PREFIX):
                marks[header[0]] = header[1]
            else:
                headers.append(header)
        scope["headers"] = headers
        given = marks.get(SECRET, b"")
        if not self._may_pass(given) and not await self._passes_soon(given):
            await _refuse(send, is_open=self._secret is not None)
            return
        if scope["path"] == "/":
            await self._app(scope, receive, send)
            return
        is_shadow = SHADOW in marks
        count = self.meter.shadow if is_shadow else self.meter.live
        self.meter.enter(count)
        try:
            if is_shadow:
                await self._app(scope, receive, self._signed(send))
            elif TARGETS in marks and _is_scored(scope["path"]):
                await self._answer_marked(marks, scope, receive, send)
            else:
                await self._app(scope, receive, send)
        finally:
            self.meter.leave(count)

    def _may_pass(self, given: bytes) -> bool:
        return self._secret is not None and compare_digest(given, self._secret)

    async def _passes_soon(self, given: bytes) -> bool:
        """Return whether it is the secret that a registration under way brings."""
        if not given or self._waiting >= ADMISSION_MAX:
            return False
        until_s = time.monotonic() + ADMISSION_S
        self._waiting += 1
        try:
            while self.is_expecting and time.monotonic() < until_s:
                await asyncio.sleep(_LOOK_S)
                if self._may_pass(given):
                    return True
        finally:
            self._waiting -= 1
        return self._may_pass(given)

    def _signed(self, send: Send) -> Send:
        """Return a `send` that says whose answer it is, and how long it took without the way."""
        began_s = time.perf_counter()

        async def signed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                took_ms = (time.perf_counter() - began_s) * 1e3
                message["headers"] = [
                    *message["headers"], (REVISION, self._revision),
                    (TOOK_MS, f"{took_ms:.3f}".encode()),
                ]
            await send(message)

        return signed

    async def _answer_marked(
        self, marks: dict[bytes, bytes], scope: Scope, receive: Receive, send: Send
    ) -> None:
        began_unix_s, began_s = time.time(), time.perf_counter()
        copy = _Copy(receive, send, self._bytes_max)
        await self._app(scope, copy.receive, copy.send)
        took_s = time.perf_counter() - began_s
        if not copy.is_whole:
            return
        answered = dict(copy.headers)
        run_ms = answered.get(_RUN_MS)
        self._mirror.offer(Exchange(
            endpoint=self._endpoint, deployment=self._deployment,
            request_id=marks.get(REQUEST_ID, b"").decode("latin-1"),
            targets=tuple(
                name for part in marks[TARGETS].decode("latin-1").split(",")
                if (name := part.strip())
            ),
            method=scope["method"], path=scope["path"], query=scope["query_string"],
            headers=tuple(scope["headers"]),
            request_body=b"".join(copy.request), status=copy.status,
            answer_type=answered.get(b"content-type"), answer_body=b"".join(copy.answer),
            began_unix_s=began_unix_s, took_s=took_s,
            run_s=None if run_ms is None else float(run_ms) / 1e3,
        ))


class _Copy:
    """What passes by in one exchange; holds the pieces, which are joined only at its end."""

    def __init__(self, receive: Receive, send: Send, bytes_max: int) -> None:
        self._receive = receive
        self._send = send
        self._room_bytes = {"request": bytes_max, "answer": bytes_max}
        self.request: list[bytes] = []
        self.answer: list[bytes] = []
        self.headers: Headers = []
        self.status = 0
        self._has_request = False
        self._has_answer = False

    @property
    def is_whole(self) -> bool:
        """Whether all of it has passed, and it was not too large."""
        return self._has_request and self._has_answer and min(self._room_bytes.values()) >= 0

    async def receive(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        if message["type"] == "http.request" and not self._has_request:
            self._keep("request", self.request, message)
            self._has_request = not message.get("more_body", False)
        return message

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], message["headers"]
        else:
            self._keep("answer", self.answer, message)
        await self._send(message)
        if message["type"] == "http.response.body":
            self._has_answer = not message.get("more_body", False)

    def _keep(self, which: str, pieces: list[bytes], message: MutableMapping[str, Any]) -> None:
        piece = message.get("body", b"")
        self._room_bytes[which] -= len(piece)
        if self._room_bytes[which] >= 0:
            pieces.append(piece)
        else:
            pieces.clear()


def _is_scored(path: str) -> bool:
    """Return whether a path is one whose requests are copied; gRPC's are not."""
    return path == "/score" or path.endswith("/infer")


async def _refuse(send: Send, *, is_open: bool) -> None:
    """Answer whoever is not the edge: 403, or 503 before the edge knows this replica."""
    said = "Only the edge may call a replica" if is_open else "This replica is not registered yet"
    answer = error_answer(403 if is_open else 503, said)
    body = answer.body
    assert isinstance(body, bytes)
    await send({"type": "http.response.start", "status": answer.status, "headers": [
        (b"content-type", JSON), (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),   # whose body is not read
    ]})
    await send({"type": "http.response.body", "body": body})
