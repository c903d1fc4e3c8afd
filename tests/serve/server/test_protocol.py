"""What goes over the wire of an answer, and when."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.serve.server.conftest import Serve

STREAMS = """
    import os, time
    from azureml.contrib.services.aml_request import rawhttp
    from azureml.contrib.services.aml_response import AMLResponse

    @rawhttp
    def run(request):
        def pieces():
            while not os.path.exists(request.args["until"]):
                time.sleep(0.005)
            yield b"first"
            yield b"second"
        return AMLResponse(pieces(), 200)
"""

REQUEST = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"


@contextmanager
def connected(client: httpx.Client) -> Iterator[socket.socket]:
    host, port = client.base_url.host, client.base_url.port
    assert port is not None
    with socket.create_connection((host, port), timeout=30) as connection:
        yield connection


def read_until(connection: socket.socket, end: bytes) -> bytes:
    found = b""
    while end not in found:
        piece = connection.recv(65536)
        assert piece, found
        found += piece
    return found


def test_a_small_answer_comes_in_one_piece(serve: Serve) -> None:
    client = serve("def run(data):\n    return data\n")
    with connected(client) as connection:
        for body in (b"1", b"2"):
            connection.sendall(REQUEST + body)
            found = connection.recv(65536)
            assert found.startswith(b"HTTP/1.1 200 OK\r\n")
            assert found.endswith(b'\r\n\r\n"' + body + b'"')


def test_the_head_of_a_streamed_answer_does_not_wait_for_its_first_piece(
    serve: Serve, tmp_path: Path
) -> None:
    client = serve(STREAMS)
    with connected(client) as connection:
        target = f"/score?until={tmp_path / 'go'}".encode()
        connection.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        head = read_until(connection, b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"first" not in head
        (tmp_path / "go").touch()
        rest = read_until(connection, b"0\r\n\r\n")
        assert rest == b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n"


def test_requests_that_are_sent_at_once_are_answered_in_their_order(serve: Serve) -> None:
    client = serve("def run(data):\n    return data\n")
    with connected(client) as connection:
        connection.sendall(b"".join(REQUEST + b"%d" % number for number in range(5)))
        found = read_until(connection, b'"4"')
    assert [line for line in found.split(b"\r\n") if line.startswith(b'"')] == [
        b'"0"HTTP/1.1 200 OK', b'"1"HTTP/1.1 200 OK', b'"2"HTTP/1.1 200 OK',
        b'"3"HTTP/1.1 200 OK', b'"4"',
    ]


def test_a_connection_that_is_to_close_closes_after_the_whole_answer(serve: Serve) -> None:
    client = serve("def run(data):\n    return data * 1000000\n")
    with connected(client) as connection:
        connection.sendall(REQUEST.replace(b"Host", b"Connection: close\r\nHost") + b"x")
        found = b""
        while piece := connection.recv(1 << 20):
            found += piece
    assert found.endswith(b'x"')
    assert len(found.partition(b"\r\n\r\n")[2]) == 1000002


def test_a_trailer_of_a_body_in_chunks_is_no_header(serve: Serve) -> None:
    client = serve("def run(data, request_headers):\n    return sorted(request_headers)\n")
    head = b"POST /score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(client) as connection:
        connection.sendall(head + b"1\r\n1\r\n0\r\nX-Inferay-Mirror: green\r\nX-A: b\r\n\r\n")
        answer = read_until(connection, b"]").lower().partition(b"\r\n\r\n")[2]
    assert b"transfer-encoding" in answer
    assert b"x-" not in answer
