"""Replicas as plain processes, behind a real edge."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferay.errors import UserCodeError
from inferay.serve.registration import Registration
from inferay.serve.routing import DeploymentRoute, EndpointRoute, RoutingTable, digest_of
from tests.edges import RunningEdge, started, wait_until
from tests.serve import replicas
from tests.serve.loads import Load
from tests.serve.replicas import replica_spec
from tests.serve.server.processes import Server

KEY = "a-key"
ECHO = "def run(data):\n    return data\n"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with started(tmp_path_factory.mktemp("edge")) as found:
        with contextlib.closing(found.client()) as client:
            client.publish(RoutingTable((EndpointRoute(
                "digits", (digest_of(KEY),), traffic={"blue": 100},
                deployments=(DeploymentRoute("blue", "r1", 16, 30.0),),
            ),)))
        yield found


Start = Callable[..., Server]


@pytest.fixture
def start(edge: RunningEdge, tmp_path: Path) -> Iterator[Start]:
    """Start replicas of blue; they end with the test, and the edge has let them go."""
    running: list[Server] = []

    def start(replica_id: str, script: str = ECHO, **fields: Any) -> Server:
        values = {
            "edge_url": edge.management, "credential": edge.credential("digits", "blue", "r1"),
            **fields,
        }
        spec = replica_spec(tmp_path / f"code-{replica_id}", script, **values)
        running.append(replicas.start(tmp_path / replica_id, replica_id, spec))
        return running[-1]

    yield start
    for server in running:
        if server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
        server.end()


def score(edge: RunningEdge, data: str = "1") -> httpx.Response:
    with edge.http() as client:
        return client.post(
            "/endpoints/digits/score", content=data, headers={"authorization": f"Bearer {KEY}"}
        )


def test_a_replica_takes_requests_when_it_says_that_it_is_ready(
    edge: RunningEdge, start: Start
) -> None:
    server = start("one")
    assert server.state()["is_in"] is True
    assert score(edge, "hello").json() == "hello"
    assert httpx.get(f"{server.url}/score").status_code == 403
    wait_until(
        lambda: (found := edge.replica("one")) and found.counters["live_total"] == 1,
        "its counters at the edge",
    )


def test_replicas_come_and_go_under_load_and_no_request_is_lost(
    edge: RunningEdge, start: Start
) -> None:
    slow = "import time\n\ndef run(data):\n    time.sleep(0.05)\n    return data\n"
    servers = [start("first", slow)]
    servers[0].state()
    with Load(edge, "digits", KEY) as load:
        for number in range(3):
            servers.append(start(f"next{number}", slow))
            servers[-1].state()
            load.wait_for(20)
            servers[-2].process.send_signal(signal.SIGTERM)
            servers[-2].end()
            assert servers[-2].process.returncode == 0
            load.wait_for(20)
    assert set(load.seen) == {"200"}


def test_a_replica_that_leaves_answers_what_is_in_flight(
    edge: RunningEdge, start: Start, tmp_path: Path
) -> None:
    server = start("held", f"""
        import pathlib, time

        FOLDER = pathlib.Path({str(tmp_path)!r})

        def run(data):
            (FOLDER / "began").touch()
            while not (FOLDER / "go").exists():
                time.sleep(0.005)
            return "done"
    """)
    server.state()
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(score(edge).json()))
    thread.start()
    wait_until((tmp_path / "began").exists, "the call")
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: (one := edge.replica("held")) and one.is_leaving, "it to leave")
    (tmp_path / "go").touch()
    thread.join()
    assert answers == ["done"]
    server.end()
    assert edge.replica("held") is None


def test_an_init_that_raises_is_told_to_the_edge_with_the_users_traceback(
    edge: RunningEdge, start: Start
) -> None:
    server = start("broken", "def init():\n    raise ValueError('no weights')\n\n" + ECHO)
    assert server.state()["state"] == "Failed"
    [failure] = [one for one in edge.state().failures if one.replica == "broken"]
    assert failure.error["code"] == "InitFailed"
    [detail] = failure.error["details"]
    assert detail["message"].startswith("Traceback (most recent call last):\n  File \"score.py\"")
    assert "ValueError: no weights" in detail["message"]


def test_what_user_code_does_to_logging_and_processes_keeps_no_replica_out(
    edge: RunningEdge, start: Start
) -> None:
    server = start("odd", """
        import logging.config, os, threading

        def init():
            logging.config.dictConfig({"version": 1})
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            if os.fork() == 0:
                os._exit(0)

        def run(data):
            return data
    """)
    server.state()
    assert score(edge, "still there").json() == "still there"
    wait_until(
        lambda: (one := edge.replica("odd")) and one.counters["live_total"] == 1,
        "another announcement",
    )


def test_a_replica_joins_an_edge_that_starts_after_it_and_stays_in_one_that_restarts(
    edge: RunningEdge, start: Start
) -> None:
    edge.end(signal.SIGKILL)   # HAProxy goes on
    server = start("early")
    wait_until(lambda: (server.folder / "spec.json").exists(), "its start")
    edge.start()
    assert server.state()["is_in"] is True
    with Load(edge, "digits", KEY) as load:
        load.wait_for(20)
        edge.end(signal.SIGUSR1)
        edge.start()
        load.wait_for(20)
        wait_until(lambda: edge.replica("early") is not None, "it to be known again")
    assert set(load.seen) == {"200"}


def test_a_replica_whose_edge_is_gone_leaves_all_the_same(
    edge: RunningEdge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferay.serve.registration.LEAVE_S", 0.5)
    registration = Registration(replica_spec(
        tmp_path, ECHO, edge_url=edge.management,
        credential=edge.credential("digits", "blue", "r1"),
    ), "last")
    with socket.create_server(("127.0.0.1", 0)) as port:
        assert registration.join(
            "127.0.0.1", port.getsockname()[1], counters=dict, on_asking=lambda is_asking: None,
            on_admitted=lambda admission: None,
        )
    edge.end(signal.SIGUSR1)
    began_s = time.monotonic()
    assert registration.leave_and_drain(lambda: 0)
    assert time.monotonic() - began_s < 5
    edge.start()
    assert registration.leave_and_drain(lambda: 0)   # again
    assert edge.replica("last") is None


def test_without_an_edge_joining_gives_up_and_says_so_and_leaving_is_quick(tmp_path: Path) -> None:
    spec = replica_spec(tmp_path, ECHO, edge_url="http://127.0.0.1:1", credential="none")
    registration = Registration(spec, "alone")
    admitted: list[object] = []
    assert not registration.join(
        "127.0.0.1", 1, counters=dict, on_asking=lambda is_asking: None,
        on_admitted=admitted.append, limit_s=0.5,
    )
    began_s = time.monotonic()
    assert registration.leave_and_drain(lambda: 0)
    registration.failed(UserCodeError("init() failed"), limit_s=0.2)
    assert time.monotonic() - began_s < 5
    assert not admitted


def test_a_replica_with_a_wrong_credential_is_never_in(
    edge: RunningEdge, tmp_path: Path
) -> None:
    spec = replica_spec(
        tmp_path, ECHO, edge_url=edge.management,
        credential=edge.credential("digits", "blue", "another"),
    )
    registration = Registration(spec, "wrong")
    assert not registration.join(
        "127.0.0.1", 1, counters=dict, on_asking=lambda is_asking: None,
        on_admitted=lambda admission: None, limit_s=0.5,
    )
    assert registration.leave_and_drain(lambda: 0)
    assert edge.replica("wrong") is None


def test_a_request_that_does_not_end_holds_up_a_drain_for_its_limit_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replica_spec(tmp_path, ECHO, edge_url="http://127.0.0.1:1", credential="none")
    monkeypatch.setattr("inferay.serve.replica_spec.DRAIN_MARGIN_S", -15.3)   # 0.2 s in all
    began_s = time.monotonic()
    assert not Registration(spec, "stuck").leave_and_drain(lambda: 1)
    assert time.monotonic() - began_s < 5
