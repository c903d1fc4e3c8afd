"""How the inference server takes on no more than it is told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

from inferay.serve.server.limits import Limits
from tests.serve.server.conftest import Serve

#: Waits until the file that the body names is there, and counts who runs at once.
HOLDS = """
    import os, threading, time

    now, most = 0, 0
    lock = threading.Lock()

    def run(data):
        global now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            while data and not os.path.exists(data):
                time.sleep(0.005)
        finally:
            with lock:
                now -= 1
        return most
"""


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_as_many_run_and_wait_at_once_as_the_deployment_says(
    serve: Serve, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    client = serve(HOLDS, Limits(concurrent_requests_max=3, queue_wait_s=30, request_timeout_s=30))
    go = tmp_path / "go"
    calls = [threads.submit(client.post, "/score", content=str(go)) for _ in range(7)]
    refused, others = wait(calls, return_when=FIRST_COMPLETED)
    [answer] = (call.result() for call in refused)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert answer.headers["x-inferay-reason"] == "too_many_pending_requests"
    go.touch()
    found = [call.result() for call in others]
    assert [one.status_code for one in found] == [200] * 6
    assert max(one.json() for one in found) == 3
    assert client.post("/score", content="").status_code == 200


def test_who_waits_longer_than_the_queue_wait_is_refused(
    serve: Serve, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    client = serve(HOLDS, Limits(queue_wait_s=0.05, request_timeout_s=30))
    go = tmp_path / "go"
    held = threads.submit(client.post, "/score", content=str(go))
    while (found := client.post("/score", content="")).status_code == 200:
        pass
    assert "no place was free in time" in found.json()["message"]
    go.touch()
    assert held.result().status_code == 200


def test_a_call_over_its_time_is_answered_and_its_place_is_held_until_it_ends(
    serve: Serve, tmp_path: Path
) -> None:
    client = serve(HOLDS, Limits(queue_wait_s=0.02, request_timeout_s=0.05))
    go = tmp_path / "go"
    found = client.post("/score", content=str(go))
    assert found.status_code == 500
    assert found.json() == {"message": "Scoring timeout after 50 ms"}
    assert found.headers["x-inferay-reason"] == "request_timeout"
    assert found.headers["x-ms-run-function-failed"] == "True"
    assert client.post("/score", content="").status_code == 503
    assert client.get("/").status_code == 503   # no call can run: it has to be replaced
    go.touch()
    while client.get("/").status_code != 200:
        pass
    assert client.post("/score", content="").json() == 1


def test_an_async_call_over_its_time_is_cancelled(serve: Serve) -> None:
    client = serve(
        """
        import asyncio

        async def run(data):
            await asyncio.sleep(float(data))
            return "done"
        """,
        Limits(request_timeout_s=0.05, queue_wait_s=5),
    )
    assert client.post("/score", content="30").status_code == 500
    assert client.post("/score", content="0").json() == "done"


def test_a_body_that_is_too_large_is_refused_before_it_is_read(serve: Serve) -> None:
    client = serve("def run(data):\n    return len(data)\n", Limits(body_bytes_max=1000))
    assert client.post("/score", content=b"x" * 1000).json() == 1000
    port = httpx.URL(client.base_url).port
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000000\r\n\r\n"
        )
        reply = connection.recv(65536)
        assert reply.startswith(b"HTTP/1.1 413 ")
        while connection.recv(65536):   # and the connection is closed
            pass


def test_a_body_in_chunks_is_counted_as_it_comes(serve: Serve) -> None:
    client = serve("def run(data):\n    return len(data)\n", Limits(body_bytes_max=1000))
    assert client.post("/score", content=iter([b"x" * 500] * 2)).json() == 1000
    port = httpx.URL(client.base_url).port
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while sent < 100 << 20:
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                sent += 0x10000
        except OSError:   # it is closed
            pass
    assert sent < 100 << 20


def test_the_server_goes_on_when_clients_leave_in_the_middle(
    serve: Serve, tmp_path: Path
) -> None:
    client = serve(HOLDS, Limits(concurrent_requests_max=2, queue_wait_s=5, request_timeout_s=30))
    go = tmp_path / "go"
    port = httpx.URL(client.base_url).port
    body = str(go).encode()
    head = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    for cut in (head % 100 + b"half", head % len(body) + body):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(cut)
    go.touch()
    for _ in range(4):
        assert client.post("/score", content="").status_code == 200


def test_an_answer_without_end_ends_when_nobody_reads_it(serve: Serve) -> None:
    client = serve(
        """
        from azureml.contrib.services.aml_response import AMLResponse

        ended = []

        def pieces():
            try:
                while True:
                    yield b"x" * 1000
            finally:
                ended.append(True)

        def run(data):
            return AMLResponse(pieces(), 200) if data else ended
        """,
        Limits(queue_wait_s=30, request_timeout_s=30),
    )
    with client.stream("POST", "/score", content="endless") as answer:
        assert next(answer.iter_bytes())
    assert client.post("/score", content="").json() == [True]   # and its place is given back


def test_many_clients_get_their_own_answers(serve: Serve, threads: ThreadPoolExecutor) -> None:
    client = serve(
        "def run(data):\n    return data\n",
        Limits(concurrent_requests_max=4, queue_wait_s=30, request_timeout_s=30),
    )
    barrier = threading.Barrier(8)

    def ask(who: int) -> list[str]:
        barrier.wait()
        return [client.post("/score", content=f"{who}-{number}").json() for number in range(50)]

    found = [threads.submit(ask, who) for who in range(8)]
    for who, answers in enumerate(found):
        assert answers.result() == [f"{who}-{number}" for number in range(50)]
