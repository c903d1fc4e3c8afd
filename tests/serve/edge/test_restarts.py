"""What may die, and what of it a client notices."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import http.client
import http.server
import signal
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest

from inferay import tls
from inferay.config import Workspace
from tests.edges import RunningEdge, wait_until
from tests.serve.edge.conftest import Stage, endpoint


class Load:
    """Clients that score all the time, and count what came of it."""

    def __init__(self, stage: Stage, auth: dict[str, str]) -> None:
        self._stage, self._auth = stage, auth
        self._stopping = threading.Event()
        self.count: Counter[str] = Counter()

    @contextmanager
    def running(self, clients: int = 4) -> Iterator[None]:
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            calls = [pool.submit(self._run) for _ in range(clients)]
            wait_until(lambda: self.count["200"] > 20, "the first answers")
            try:
                yield
                more = self.count["200"] + 20
                wait_until(lambda: self.count["200"] > more, "answers after the fault")
            finally:
                self._stopping.set()
            for call in calls:
                call.result()
        gc.collect()   # what it leaves is warned of here, not in the next test

    def _run(self) -> None:
        while not self._stopping.is_set():
            # A client for each request: what is refused is counted, not retried.
            with self._stage.edge.http() as http:
                try:
                    answer = http.post("/endpoints/e/score", headers=self._auth, content=b"[1]")
                    self.count[str(answer.status_code)] += 1
                except httpx.HTTPError as error:
                    self.count[type(error).__name__] += 1


@pytest.fixture
def load(stage: Stage, auth: dict[str, str]) -> Load:
    stage.add("b1", "e", "blue")
    stage.add("b2", "e", "blue")
    stage.publish(endpoint())
    stage.edge.wait_up("b1", "b2")
    return Load(stage, auth)


def master(edge: RunningEdge) -> psutil.Process:
    return psutil.Process(edge.state().haproxy["pid"])


def test_nothing_is_lost_while_the_edge_process_is_killed_and_started_again(
    load: Load, stage: Stage
) -> None:
    before = master(stage.edge).pid
    with load.running():
        assert stage.edge.end(signal.SIGKILL) == -signal.SIGKILL
        stage.edge.start()
        state = stage.edge.state()
    assert state.haproxy["pid"] == before
    assert {one.id for one in state.replicas if one.is_up} == {"b1", "b2"}
    assert set(load.count) == {"200"}


def test_nothing_is_lost_while_the_edge_process_hands_over_to_the_next(
    load: Load, stage: Stage
) -> None:
    with load.running():
        assert stage.edge.end(signal.SIGUSR1) == 0
        stage.edge.start()
        stage.add("b3", "e", "blue")   # it still reaches HAProxy
        stage.edge.wait_up("b3")
    assert set(load.count) == {"200"}


def test_nothing_is_lost_while_haproxy_is_reloaded(load: Load, stage: Stage) -> None:
    with load.running():
        for _ in range(2):
            client = stage.edge.client()
            client.reload()
            client.close()
        stage.edge.wait_up("b1", "b2")
    assert set(load.count) == {"200"}


def test_a_connection_in_use_is_closed_by_an_answer_that_says_so_and_never_by_a_reload(
    load: Load, stage: Stage, auth: dict[str, str]
) -> None:
    closed: list[str] = []
    has_ended = threading.Event()
    context = ssl.create_default_context(cafile=str(stage.edge.ca))

    def use_connections() -> None:
        while not has_ended.is_set():
            connection = http.client.HTTPSConnection(
                "127.0.0.1", stage.edge.config.port, context=context, timeout=20
            )
            is_last = False
            while not is_last and not has_ended.is_set():
                try:
                    connection.request("POST", "/endpoints/e/score", b"[1]", auth)
                    answer = connection.getresponse()
                    answer.read()
                    is_last = answer.will_close
                    has_ended.wait(0.02)   # it is idle meanwhile
                except (OSError, http.client.HTTPException) as error:
                    closed.append(repr(error))
                    return
            if is_last:
                closed.append("announced")
            connection.close()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(use_connections) for _ in range(8)]
        with contextlib.closing(stage.edge.client()) as client:
            for _ in range(3):
                client.reload()
        has_ended.set()
        for call in calls:
            call.result()
    assert set(closed) == {"announced"}
    with stage.edge.http() as again:   # what the new worker answers does not close
        answer = again.post("/endpoints/e/score", headers=auth, content=b"[1]")
    assert "connection" not in answer.headers


#: Of Python's own, where the other side resets a connection between its start and its handshake.
killed = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)


@killed
def test_a_killed_haproxy_is_started_again_with_what_it_knew(
    load: Load, stage: Stage
) -> None:
    with load.running():
        master(stage.edge).kill()
        wait_until(lambda: load.count["ConnectError"], "a refused connection")
    assert stage.edge.state().haproxy["restarts"] >= 1
    assert set(load.count) <= {"200", "ConnectError", "ReadError", "RemoteProtocolError"}


@killed
def test_a_killed_worker_of_haproxy_is_replaced_too(load: Load, stage: Stage) -> None:
    with load.running():
        (worker,) = master(stage.edge).children()
        worker.kill()
        wait_until(lambda: load.count.total() > load.count["200"], "a lost request")


def test_a_replica_that_ends_without_a_word_costs_nothing_where_sent_requests_are_retried(
    stage: Stage, auth: dict[str, str]
) -> None:
    one = stage.add("b1", "e", "blue")
    stage.add("b2", "e", "blue")
    stage.publish(endpoint(is_retried=True))
    stage.edge.wait_up("b1", "b2")
    load = Load(stage, auth)
    with load.running():
        one.stop()
    assert set(load.count) == {"200"}


@pytest.mark.parametrize(("is_retried", "size_bytes", "is_answered"), [
    (True, 64 << 10, True), (True, 200_000, False), (False, 10, False),
])
def test_a_request_that_was_sent_is_sent_again_where_asked_for_and_where_it_fits(
    stage: Stage, auth: dict[str, str], is_retried: bool, size_bytes: int, is_answered: bool
) -> None:
    stage.add("b1", "e", "blue")
    stage.publish(endpoint(is_retried=is_retried))
    stage.edge.wait_up("b1")
    with dying_replica() as (port, seen), stage.edge.http() as client:
        stage.edge.register("e", "blue", "1", f"dying-{port}", port)
        stage.edge.wait_up(f"dying-{port}")
        statuses: list[int] = []
        while not seen:   # one request reaches it; then it is out
            try:
                answer = client.post("/endpoints/e/score", headers=auth, content=b"x" * size_bytes)
                statuses.append(answer.status_code)
            except httpx.RemoteProtocolError:   # HAProxy 2.6 closes the connection instead
                statuses.append(502)
        stage.bearers[f"dying-{port}"] = stage.bearers["b1"]
        wait_until(lambda: stage.leave(f"dying-{port}"), "it to be gone")
    assert (statuses[-1] == 200) == is_answered
    assert set(statuses[:-1]) <= {200}
    if not is_answered:
        assert statuses[-1] == 502


@contextmanager
def dying_replica() -> Iterator[tuple[int, list[str]]]:
    """Listen as a replica whose health is good, and that dies with each request to score."""
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            seen.append(self.path)
            self.rfile.read(int(self.headers["content-length"]))
            self.close_connection = True   # without a word

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1], seen
        finally:
            server.shutdown()
            thread.join()


def test_a_replica_that_hangs_is_taken_out(stage: Stage, auth: dict[str, str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:   # accepts, answers nothing
        stage.add("b1", "e", "blue")
        stage.edge.register("e", "blue", "1", "hung", listener.getsockname()[1])
        stage.publish(endpoint())
        wait_until(
            lambda: (found := stage.edge.replica("hung")) is not None and not found.is_up,
            "the check to fail",
        )
        stage.edge.wait_up("b1")
        wait_until(lambda: _by(stage, auth) == {"b1"}, "requests to go elsewhere")


def _by(stage: Stage, auth: dict[str, str]) -> set[str]:
    with stage.edge.http() as http:
        return {
            http.post("/endpoints/e/score", headers=auth).json().get("by", "") for _ in range(4)
        }


def test_a_new_certificate_is_taken_over_without_a_lost_request(
    load: Load, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "RENEW_DAYS", tls.SERVER_DAYS + 1)
    address = ("127.0.0.1", stage.edge.config.port)
    before = ssl.get_server_certificate(address)
    with load.running():
        tls.ensure_tls(Workspace(stage.edge.folder / "home"), "127.0.0.1")
        wait_until(lambda: ssl.get_server_certificate(address) != before, "the new certificate")
    assert set(load.count) == {"200"}
