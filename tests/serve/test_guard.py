"""The guard over HTTP, around a real inference server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from inferay.serve.guard import Guard
from inferay.serve.mirror.exchange import Exchange
from inferay.serve.server.hosting import Hosted
from inferay.serve.server.serving import Serving
from tests.serve.replicas import replica_spec

SECRET = "between the edge and us"
LIVE = {"x-inferay-edge": SECRET, "x-inferay-request": "one"}
MARKED = {**LIVE, "x-inferay-mirror": "green,red"}


@dataclass
class Replica:
    """A guarded server, and what it handed to its mirror."""

    guard: Guard
    client: httpx.Client
    offered: list[Exchange] = field(default_factory=list)

    def offer(self, exchange: Exchange) -> None:
        self.offered.append(exchange)

    def exchange(self) -> Exchange:
        """Return the one that was offered; it may come after its answer."""
        while not self.offered:
            time.sleep(0.001)
        [found] = self.offered
        return found


Start = Callable[..., Replica]


@pytest.fixture
def start(tmp_path: Path, own_environment: None) -> Iterator[Start]:
    running: list[tuple[Serving, httpx.Client]] = []

    def start(script: str, bytes_max: int = 1 << 20) -> Replica:
        hosted = Hosted(replica_spec(tmp_path / "code", script).server)
        replica = Replica(None, None)   # type: ignore[arg-type]
        replica.guard = Guard(
            hosted.app, endpoint="digits", deployment="blue", revision="r7", mirror=replica,
            bytes_max=bytes_max,
        )
        serving = Serving(replica.guard, "127.0.0.1", 0)
        serving.start()
        replica.client = httpx.Client(base_url=f"http://127.0.0.1:{serving.port}", timeout=20)
        running.append((serving, replica.client))
        return replica

    yield start
    for serving, client in running:
        client.close()
        serving.stop(timeout_s=10)


@pytest.fixture
def echo(start: Start) -> Replica:
    """A registered replica that returns its input and the names of the headers it saw."""
    replica = start("""
        def run(data, request_headers):
            return [data, sorted(request_headers)]
    """)
    replica.guard.admit(SECRET)
    return replica


def test_nobody_but_the_edge_is_answered(echo: Replica) -> None:
    for headers in ({}, {"x-inferay-edge": "a guess"}, {"x-inferay-edge": SECRET + "x"}):
        for path in ("/", "/score", "/swagger.json", "/other"):
            answer = echo.client.post(path, content=b"1", headers=headers)
            assert (answer.status_code, answer.headers["connection"]) == (403, "close")
    assert echo.client.get("/", headers=LIVE).text == "Healthy"
    assert echo.client.post("/score", content=b"1", headers=LIVE).json()[0] == "1"


def test_a_replica_that_is_not_registered_says_so(start: Start) -> None:
    replica = start("def run(data):\n    return 1\n")
    assert replica.client.get("/", headers=LIVE).status_code == 503


def test_a_request_that_is_faster_than_the_registrations_answer_waits_for_it(
    start: Start
) -> None:
    replica = start("def run(data):\n    return data\n")
    replica.guard.is_expecting = True
    threading.Timer(0.1, replica.guard.admit, [SECRET]).start()
    answer = replica.client.post("/score", content=b"early", headers=LIVE)
    assert answer.json() == "early"


def test_a_flood_of_strangers_does_not_wait_for_a_registration(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferay.serve.guard.ADMISSION_MAX", 2)
    replica = start("def run(data):\n    return data\n")
    replica.guard.is_expecting = True
    with ThreadPoolExecutor(6) as threads:
        calls = [
            threads.submit(replica.client.get, "/", headers={"x-inferay-edge": "a guess"})
            for _ in range(6)
        ]
        while sum(call.done() for call in calls) < 4:
            time.sleep(0.001)
        assert sum(call.done() for call in calls) == 4   # two wait
        replica.guard.is_expecting = False
        assert {call.result().status_code for call in calls} == {503}


def test_user_code_sees_nothing_of_the_edges_marks(echo: Replica) -> None:
    seen = echo.client.post("/score", content=b"1", headers=MARKED).json()[1]
    assert "Host" in seen
    assert not [name for name in seen if "inferay" in name.lower()]


def test_a_marked_request_is_handed_on_with_its_answer(echo: Replica) -> None:
    before_unix_s = time.time()
    answer = echo.client.post(
        "/score?a=1", content=b"[1]",
        headers={**MARKED, "content-type": "application/json", "x-tenant": "t1"},
    )
    found = echo.exchange()
    assert (found.endpoint, found.deployment, found.request_id) == ("digits", "blue", "one")
    assert found.targets == ("green", "red")
    assert (found.method, found.path, found.query) == ("POST", "/score", b"a=1")
    assert {(b"content-type", b"application/json"), (b"x-tenant", b"t1")} <= set(found.headers)
    assert not [name for name, _ in found.headers if name.startswith(b"x-inferay-")]
    assert (found.request_body, found.answer_body) == (b"[1]", answer.content)
    assert (found.status, found.answer_type) == (200, b"application/json")
    assert found.run_s is not None
    assert found.run_s <= found.took_s
    assert before_unix_s <= found.began_unix_s <= time.time()


def test_a_failed_answer_is_handed_on_too(start: Start) -> None:
    replica = start("def run(data):\n    raise ValueError(data)\n")
    replica.guard.admit(SECRET)
    assert replica.client.post("/score", content=b"1", headers=MARKED).status_code == 500
    assert replica.exchange().status == 500


def test_what_is_not_a_marked_live_request_for_a_score_is_not_handed_on(echo: Replica) -> None:
    copy = {**MARKED, "x-inferay-shadow": "blue"}
    for headers, path in ((LIVE, "/score"), (copy, "/score"), (MARKED, "/swagger.json")):
        echo.client.get(path, headers=headers)
    echo.client.post("/score", content=b"last", headers=MARKED)
    assert echo.exchange().request_body == b"last"


def test_the_answer_of_a_copy_says_whose_it_is_and_how_long_it_took(echo: Replica) -> None:
    copy = {**LIVE, "x-inferay-shadow": "blue"}
    headers = echo.client.post("/score", content=b"1", headers=copy).headers
    assert headers["x-inferay-revision"] == "r7"
    assert 0 < float(headers["x-inferay-took-ms"]) < 20_000
    live = echo.client.post("/score", content=b"1", headers=LIVE).headers
    assert not [name for name in live if name.startswith("x-inferay-")]


def test_what_is_too_large_is_answered_and_not_handed_on(start: Start) -> None:
    replica = start("def run(data):\n    return data * 2\n", bytes_max=1000)
    replica.guard.admit(SECRET)
    for size in (1001, 600, 10):   # the request, the answer, neither
        body = b"x" * size
        answer = replica.client.post("/score", content=body, headers=MARKED)
        assert answer.json() == (body * 2).decode()
    assert len(replica.exchange().request_body) == 10


def test_a_body_in_chunks_and_an_answer_in_pieces_are_handed_on_whole(start: Start) -> None:
    replica = start("""
        from azureml.contrib.services.aml_request import rawhttp
        from azureml.contrib.services.aml_response import AMLResponse

        @rawhttp
        def run(request):
            return AMLResponse((piece for piece in (b"a", b"b")), 200)
    """)
    replica.guard.admit(SECRET)
    answer = replica.client.post("/score", content=iter([b"1", b"2", b"3"]), headers=MARKED)
    found = replica.exchange()
    assert (found.request_body, found.answer_body) == (b"123", answer.content)
    assert answer.content == b"ab"


def test_live_requests_and_copies_are_counted_apart_and_health_checks_not(start: Start) -> None:
    replica = start("""
        import threading

        GO = threading.Event()

        def run(data):
            GO.set() if data == "go" else GO.wait(10)
    """)
    replica.guard.admit(SECRET)
    meter = replica.guard.meter
    with ThreadPoolExecutor(3) as threads:
        for headers in (LIVE, LIVE, {**LIVE, "x-inferay-shadow": "blue"}):
            threads.submit(replica.client.post, "/score", content=b"wait", headers=headers)
        while meter.in_flight < 3:
            time.sleep(0.001)
        assert replica.client.get("/", headers=LIVE).status_code == 200
        assert meter.counters() == {
            "live_in_flight": 2, "live_total": 2, "shadow_in_flight": 1, "shadow_total": 1,
        }
        replica.client.post("/score", content=b"go", headers=LIVE)
    while meter.in_flight:
        time.sleep(0.001)
    assert (meter.live.total, meter.shadow.total) == (3, 1)
