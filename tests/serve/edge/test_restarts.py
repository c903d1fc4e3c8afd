"""What may die, and what of it a client notices."""

from __future__ import annotations

import concurrent.futures
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest

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


def test_a_killed_haproxy_is_started_again_with_what_it_knew(
    load: Load, stage: Stage
) -> None:
    with load.running():
        master(stage.edge).kill()
        wait_until(lambda: load.count["ConnectError"], "a refused connection")
    assert stage.edge.state().haproxy["restarts"] >= 1
    assert set(load.count) <= {"200", "ConnectError", "ReadError", "RemoteProtocolError"}


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
