"""A proxy in front of an S3 (or any HTTP/1.1) server that makes it misbehave, by a seed.

    with fault_proxy(server.port, rate=0.3, seed=7) as proxy:
        bucket = bucket.through(proxy.endpoint_url)     # `tests.radosgw.Bucket`
        ...
        proxy.requests, proxy.faults                    # how many, and how many of each kind

Of the requests, `rate` meet a fault, of a kind drawn from `kinds`:

    refused   503 SlowDown; the request is not passed on
    failed    500 InternalError; the request is not passed on
    lost      the request is passed on and carried out; the connection is reset without an answer
    cut       the answer is reset in the middle
    stalled   the answer stops in the middle for `stall_s`, and is reset then

`latency_s` delays every answer (a far-away store); `is_down` refuses every connection while it is
set; `choose` decides by itself, request by request. For tests, chaos trials and benchmarks. Runs in
a thread of its own; bodies are held in memory, one per connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

KINDS = ("refused", "failed", "lost", "cut", "stalled")

#: Of a request or answer without its body.
HEAD_BYTES_MAX = 64 << 10

_REFUSALS = {
    "refused": (503, "SlowDown"),
    "failed": (500, "InternalError"),
}


class _Reset(Exception):
    """The connection to the client ends here, without a word."""


@dataclass
class FaultProxy:
    """A running proxy.

    Attributes:
        upstream_port: Of the server on 127.0.0.1 behind it.
        choose: Given (number from 0, method, path) of a request, the kind of its fault, or None.
        stall_s: How long a stalled answer stops.
        latency_s: Added to every request.
        is_down: Whether every connection is refused now.
        requests: Requests by method.
        faults: Faults by kind.
        port: Its own, on 127.0.0.1.
    """

    upstream_port: int
    choose: Callable[[int, str, str], str | None]
    stall_s: float = 0.2
    latency_s: float = 0.0
    is_down: bool = False
    requests: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    port: int = 0
    _count: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def endpoint_url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, is_up: threading.Event, stop: asyncio.Event) -> None:
        """Serve until `stop` is set."""
        server = await asyncio.start_server(
            self._accept, "127.0.0.1", self.port, limit=HEAD_BYTES_MAX
        )
        self.port = server.sockets[0].getsockname()[1]
        is_up.set()
        await stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        upstream = _Upstream(self.upstream_port)
        try:
            while True:
                await self._serve_one(reader, writer, upstream)
        except (_Reset, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            upstream.close()

    async def _serve_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: _Upstream
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path = head.split(b" ", 2)[:2]
        if self.is_down:
            raise _Reset
        lines = head.split(b"\r\n")
        if any(line.lower().startswith(b"expect:") for line in lines):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = b"\r\n".join(x for x in lines if not x.lower().startswith(b"expect:"))
        body = await _body(reader, head)
        fault = self.choose(self._count, method.decode(), path.decode())
        self._count += 1
        self.requests[method.decode()] += 1
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if fault:
            self.faults[fault] += 1
        if fault in _REFUSALS:
            writer.write(_refusal(*_REFUSALS[fault], is_head=method == b"HEAD"))
            return await writer.drain()
        answer = await upstream.ask(head + body, is_head=method == b"HEAD")
        if fault == "lost":
            raise _Reset
        if fault in ("cut", "stalled"):
            writer.write(answer[:len(answer) // 2])
            await writer.drain()
            await asyncio.sleep(self.stall_s if fault == "stalled" else 0)
            raise _Reset
        writer.write(answer)
        await writer.drain()


class _Upstream:
    """The connection to the server that belongs to one client's connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, *, is_head: bool) -> bytes:
        """Return the whole answer to a request."""
        self._streams = self._streams or await asyncio.open_connection(
            "127.0.0.1", self._port, limit=HEAD_BYTES_MAX
        )
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        body = b"" if is_head or b" 204 " in head[:20] else await _body(reader, head)
        if b"connection: close" in head.lower():
            self.close()
        return head + body

    def close(self) -> None:
        """End the connection; the next request makes a new one."""
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """Return the body that follows a head, framed as it came."""
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if headers.get(b"transfer-encoding", b"").lower() != b"chunked":
        return await reader.readexactly(int(headers.get(b"content-length", 0)))
    parts = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        parts += [line, await reader.readexactly(size + 2)]
        if size == 0:
            return b"".join(parts)


def _refusal(status: int, code: str, *, is_head: bool) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>a fault</Message></Error>"
    head = (
        f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return (head + ("" if is_head else body)).encode()


def drawn(rate: float, seed: int, kinds: tuple[str, ...] = KINDS) -> Callable[..., str | None]:
    """Return a `choose` by which `rate` of the requests meet a fault of one of the kinds."""
    chance = random.Random(seed)

    def choose(number: int, method: str, path: str) -> str | None:
        return chance.choice(kinds) if chance.random() < rate else None

    return choose


@contextlib.contextmanager
def fault_proxy(
    upstream_port: int, *, rate: float = 0.0, seed: int = 0, kinds: tuple[str, ...] = KINDS,
    latency_s: float = 0.0, choose: Callable[[int, str, str], str | None] | None = None,
) -> Iterator[FaultProxy]:
    """Run a proxy until the block ends."""
    proxy = FaultProxy(
        upstream_port, choose or drawn(rate, seed, kinds), latency_s=latency_s
    )
    is_up = threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(proxy.serve(is_up, stop)), name="fault-proxy",
    )
    thread.start()
    try:
        if not is_up.wait(10):
            raise RuntimeError("the fault proxy did not start")
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
