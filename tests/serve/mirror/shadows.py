"""Listeners that behave as a test says, in the place of the edge's one for copies."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from inferay.serve.mirror.exchange import Exchange

WAIT_S = 10.0


@dataclass
class Copy:
    """A copy as it came: what was sent, up to the body, and the body."""

    head: str
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        """Return a header's value."""
        for line in self.head.split("\r\n")[1:]:
            found, _, value = line.partition(": ")
            if found.lower() == name:
                return value
        return None


#: Answers a copy on a connection; returns whether the connection goes on.
Behaviour = Callable[[socket.socket, Copy], bool]


@dataclass
class Shadow:
    """A listener on a port of 127.0.0.1."""

    port: int = 0
    copies: list[Copy] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)

    def wait_for(self, count: int) -> list[Copy]:
        """Return the copies, once there are so many."""
        wait_until(lambda: len(self.copies) >= count)
        return self.copies


def wait_until(is_so: Callable[[], bool]) -> None:
    """Return when it is so."""
    deadline_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it has not come to be so"
        time.sleep(0.002)


def answer(body: bytes = b"[1]", status: int = 200, headers: str = "") -> Behaviour:
    """Answer as a replica does."""
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}"

    def send(connection: socket.socket, _: Copy) -> bool:
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        return True

    return send


def say(data: bytes, *, is_end: bool = True) -> Behaviour:
    """Send these bytes, and close or stay."""
    def send(connection: socket.socket, _: Copy) -> bool:
        connection.sendall(data)
        return not is_end

    return send


def hang(connection: socket.socket, _: Copy) -> bool:
    """Read, and never answer."""
    return True


@contextlib.contextmanager
def shadow(behaviour: Behaviour) -> Iterator[Shadow]:
    """Listen until the block ends."""
    found = Shadow()
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    found.port = listener.getsockname()[1]
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as lines:
            while (copy := _read(lines, number)) is not None:
                found.copies.append(copy)
                if not behaviour(connection, copy):
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            found.connections.append(connection)
            thread = threading.Thread(target=serve, args=(connection, len(found.connections)))
            thread.start()
            threads.append(thread)

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield found
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for connection in found.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def _read(lines: object, number: int) -> Copy | None:
    head = []
    while (line := lines.readline()) not in (b"\r\n", b""):   # type: ignore[attr-defined]
        head.append(line.decode("latin-1").rstrip("\r\n"))
    if line == b"":
        return None
    copy = Copy("\r\n".join(head), b"", number)
    copy.body = lines.read(int(copy.header("content-length") or 0))   # type: ignore[attr-defined]
    return copy


def exchange(request_id: str = "r1", *targets: str, **changes: object) -> Exchange:
    """Return a live exchange that is to be copied."""
    values = {
        "endpoint": "digits", "deployment": "blue", "request_id": request_id,
        "targets": targets or ("green",), "method": "POST", "path": "/score", "query": b"",
        "headers": ((b"content-type", b"application/json"), (b"x-tenant", b"mine"),
                    (b"host", b"public"), (b"content-length", b"99"), (b"expect", b"100-continue")),
        "request_body": b'{"data": 1}', "status": 200, "answer_type": b"application/json",
        "answer_body": b"[1]", "began_unix_s": 1e9, "took_s": 0.01, "run_s": 0.005,
    }
    return Exchange(**values | changes)   # type: ignore[arg-type]
