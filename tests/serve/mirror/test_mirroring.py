"""Real replicas mirror each other's requests through a real edge."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from inferay.serve.mirror.report import ShadowReport
from inferay.serve.mirror.review import report_of
from inferay.serve.routing import DeploymentRoute, EndpointRoute, RoutingTable, digest_of
from tests.edges import RunningEdge, started, wait_until
from tests.serve import replicas
from tests.serve.server.processes import Server

KEY = "the-primary-key"

#: Notes each call; green's score is 0.25 off for every tenth number; "fail" and "hang" do so.
SCRIPT = """
import json, os, time

def run(data):
    with open({calls!r}, "a") as calls:
        calls.write(data + "\\n")
    number = json.loads(data)["number"]
    if {name!r} == "green" and number == "fail":
        raise ValueError("green cannot")
    if {name!r} == "green" and number == "hang":
        time.sleep(30)
    off = 0.25 if {name!r} == "green" and number != "hang" and number % 10 == 0 else 0.0
    return {{"score": 0.5 + off}}
"""


@dataclass
class Stage:
    """An edge with blue and green behind it, of an endpoint of the test's own."""

    edge: RunningEdge
    folder: Path
    http: httpx.Client
    endpoint: str

    def start(self, *names: str) -> list[Server]:
        """Start replicas, side by side."""
        servers = []
        for name in names:
            place = self.folder / f"{name}-{time.monotonic_ns()}"
            calls = str(self.folder / f"{name}.calls")
            servers.append(replicas.start(place / "process", place.name, replicas.replica_spec(
                place / "code", SCRIPT.format(name=name, calls=calls), deployment=name,
                endpoint=self.endpoint, edge_url=self.edge.management,
                credential=self.edge.credential(self.endpoint, name, "r1"),
                pairs_dir=str(self.pairs),
            )))
        for server in servers:
            assert server.state().get("is_in"), server.state()
        return servers

    @property
    def pairs(self) -> Path:
        return self.folder / "pairs"

    def publish(self, traffic: dict[str, int], mirror: dict[str, int]) -> None:
        routes = tuple(DeploymentRoute(name, "r1", 16, 25.0) for name in ("blue", "green"))
        route = EndpointRoute(self.endpoint, (digest_of(KEY),), None, traffic, mirror, routes)
        with contextlib.closing(self.edge.client()) as client:
            client.publish(RoutingTable((route,)))

    def score(self, number: object) -> float:
        """Score a number; return how long it took."""
        began_s = time.perf_counter()
        answer = self.http.post(
            f"/endpoints/{self.endpoint}/score", json={"number": number},
            headers={"authorization": f"Bearer {KEY}"},
        )
        assert answer.status_code == 200, answer.text
        assert not [name for name in answer.headers if name.startswith("x-inferay-")]
        return time.perf_counter() - began_s

    def calls(self, name: str) -> Counter[str]:
        """Return how often each number was scored by a deployment."""
        path = self.folder / f"{name}.calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(str(json.loads(line)["number"]) for line in lines)

    def settled(self, live: str, shadow: str, pairs: int) -> ShadowReport:
        """Return the report once so many pairs are in it."""
        wait_until(lambda: report_of(self.pairs, live, shadow).pairs >= pairs, f"{pairs} pairs")
        return report_of(self.pairs, live, shadow)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with started(tmp_path_factory.mktemp("edge")) as found:
        yield found


@pytest.fixture
def stage(edge: RunningEdge, tmp_path: Path) -> Iterator[Stage]:
    with edge.http() as http:
        yield Stage(edge, tmp_path, http, f"e{time.monotonic_ns()}")


@pytest.fixture
def both(stage: Stage) -> Iterator[list[Server]]:
    """A replica of blue, and one of green."""
    servers = stage.start("blue", "green")
    yield servers
    for server in servers:
        server.kill()


def test_two_deployments_that_mirror_each_other_get_one_copy_of_each_request(
    stage: Stage, both: list[Server]
) -> None:
    stage.publish({"blue": 50, "green": 50}, {"blue": 100, "green": 100})
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(stage.score, range(200)))
    once = {str(number): 1 for number in range(200)}
    wait_until(lambda: stage.calls("blue") == once == stage.calls("green"), "every copy")

    def reports() -> list[ShadowReport]:
        return [report_of(stage.pairs, *each) for each in (("blue", "green"), ("green", "blue"))]

    wait_until(lambda: sum(one.pairs for one in reports()) == 200, "every pair")
    assert stage.calls("blue") == once == stage.calls("green")   # no copy of a copy came since
    found, back = reports()
    assert min(found.pairs, back.pairs) > 50
    assert found.differences["number"] + back.differences["number"] == 20   # as planted
    score, = found.drift
    assert (score.path, score.max_distance) == ("$.score", 0.25)
    assert found.statuses == {"200/200": found.pairs}
    assert found.took is not None
    assert found.run is not None
    assert 0 < found.run.shadow_p50_s < found.took.shadow_p50_s < 1
    assert (found.worst[0].live_body, found.worst[0].largest) == ('{"score": 0.5}', 0.25)
    assert json.loads(found.worst[0].request)["number"] % 10 == 0
    of_revision = report_of(stage.pairs, "blue", "green", shadow_revision="r2")
    assert of_revision.copies.other_revisions == found.pairs


def test_a_shadow_that_fails_or_hangs_changes_nothing_for_clients(
    stage: Stage, both: list[Server]
) -> None:
    stage.publish({"blue": 100}, {"green": 100})
    plain_s = [stage.score(1) for _ in range(50)]
    shadowed_s = [stage.score(number) for number in ["fail"] * 10 + ["hang"] * 200]
    assert statistics.median(shadowed_s) < 3 * statistics.median(plain_s) + 0.005
    assert max(shadowed_s) < 5
    found = stage.settled("blue", "green", 60)
    assert found.statuses["200/500"] == 10
    assert "200/429" not in found.statuses
    assert found.errors.live.count == 0


def test_pairs_outlive_a_killed_replica_and_go_on_with_the_next(
    stage: Stage, both: list[Server]
) -> None:
    stage.publish({"green": 100}, {"blue": 100})
    for number in range(20):
        stage.score(number)
    stage.settled("green", "blue", 20)
    both[1].kill()
    both += stage.start("green")
    wait_until(lambda: sum(
        one.is_up for one in stage.edge.state().replicas
        if (one.endpoint, one.deployment) == (stage.endpoint, "green")
    ) == 1, "the dead one to be out")
    for number in range(20):
        stage.score(100 + number)
    assert stage.settled("green", "blue", 40).pairs == 40


def test_a_shadow_that_is_gone_changes_nothing_for_clients(
    stage: Stage, both: list[Server]
) -> None:
    stage.publish({"blue": 100}, {"green": 100})
    both[1].kill()
    for number in range(20):
        stage.score(number)
    found = stage.settled("blue", "green", 20)
    assert (found.errors.live.count, found.errors.shadow.count) == (0, 20)
    assert found.agreement.count == 0
