"""Clients that are slow, too large, or not speaking HTTP: they end, and good ones go on."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from inferay.serve.server.limits import BODY_BYTES_MAX
from tests.edges import wait_until
from tests.serve.edge.conftest import KEY, Stage, endpoint

HEAD = (
    "POST /endpoints/e/score HTTP/1.1\r\nhost: x\r\n"
    f"authorization: Bearer {KEY}\r\n"
)


@contextmanager
def connected(stage: Stage) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=str(stage.edge.ca))
    with (
        socket.create_connection(("127.0.0.1", stage.edge.config.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as found,
    ):
        yield found


def told(stage: Stage, text: str) -> str:
    """Send raw text; return all that is answered until the connection is closed."""
    with connected(stage) as connection:
        connection.sendall(text.encode())
        found = b""
        try:
            while data := connection.recv(65536):
                found += data
        except ConnectionResetError:
            pass
    return found.decode()


@pytest.fixture
def blue(stage: Stage) -> Stage:
    stage.add("b1", "e", "blue")
    stage.publish(endpoint())
    stage.edge.wait_up("b1")
    return stage


@pytest.mark.parametrize("text", [
    HEAD + "content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    HEAD + "content-length: 5, 6\r\n\r\nhello!",
    HEAD + "content-length: +5\r\n\r\nhello",
    HEAD + "content-length: -1\r\n\r\nhello",
    HEAD + "transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    HEAD + "transfer-encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    HEAD + "bad header: x\r\n\r\n",
    HEAD + "x : y\r\n\r\n",
    HEAD + "x: a\0b\r\n\r\n",
    "POST /endpoints/e/score HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "nonsense\r\n\r\n",
], ids=range(11))
def test_what_is_not_clearly_http_is_400_and_the_connection_is_closed(
    blue: Stage, text: str
) -> None:
    answer = told(blue, text)
    assert answer.startswith("HTTP/1.1 400 ")
    assert answer.count("HTTP/1.1") == 1
    assert blue.containers["b1"].seen == []


def test_a_body_with_a_length_and_chunks_is_one_request_by_its_chunks(blue: Stage) -> None:
    smuggled = "POST /endpoints/e/score HTTP/1.1\r\nhost: x\r\n\r\n"
    answer = told(blue, HEAD + "transfer-encoding: chunked\r\ncontent-length: 4\r\n"
                  "connection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + smuggled)
    assert answer.count("HTTP/1.1") == 1
    assert [one["body"] for one in blue.containers["b1"].seen] in ([], [b"hello"])


def test_a_body_that_says_it_is_too_large_is_413_before_it_is_sent(blue: Stage) -> None:
    with connected(blue) as connection:
        connection.sendall((HEAD + f"content-length: {BODY_BYTES_MAX + 1}\r\n\r\n").encode())
        with contextlib.suppress(OSError):   # it may have been answered, and closed
            connection.sendall(b"x" * 200_000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert blue.containers["b1"].seen == []


def test_slow_clients_are_cut_off_and_take_nothing_from_good_ones(
    blue: Stage, auth: dict[str, str]
) -> None:
    starts = ["POST /endp", HEAD, HEAD + "content-length: 100\r\n\r\nhalf"]
    context = ssl.create_default_context(cafile=str(blue.edge.ca))
    slow = []
    for number in range(60):
        plain = socket.create_connection(("127.0.0.1", blue.edge.config.port), timeout=20)
        connection = context.wrap_socket(plain, server_hostname="127.0.0.1")
        connection.sendall(starts[number % 3].encode())
        slow.append(connection)
    began_s = time.monotonic()
    with blue.edge.http() as http:
        for _ in range(50):
            assert http.post("/endpoints/e/score", headers=auth).status_code == 200
    open_now = list(slow)

    def are_closed() -> bool:
        for connection in list(open_now):
            connection.settimeout(0.001)
            try:
                while connection.recv(65536):
                    pass
            except TimeoutError:
                continue
            except OSError:
                pass
            open_now.remove(connection)
        return not open_now

    wait_until(are_closed, "slow clients to be cut off", 20)
    assert time.monotonic() - began_s < 15
    assert len(blue.containers["b1"].seen) == 50   # no half request took a place there
    for connection in slow:
        connection.close()
