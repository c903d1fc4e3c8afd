"""A crash between any two steps of an online endpoint's life ends as if there had been none.

The edge and Ray Serve are replaced by ones that do at once what they are told, so that the whole
life runs for every point; that no request would have been lost is checked on the way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from inferay.control.fleet import Fleet
from inferay.engine.ray_dashboard import RayAddress
from inferay.serve.applications import ApplicationState
from inferay.serve.edge.client import EdgeState, ReplicaState
from inferay.serve.replica_spec import ApplicationSpec
from inferay.serve.routing import RoutingTable, digest_of_table
from tests.control.conftest import Plane
from tests.control.test_operations import CrashError, InstantJobs

#: `make chaos` takes every point, `make test` a sample: a life takes most of a second.
STRIDE = 1 if os.environ.get("CRASH_PAIRS") == "all" else 7


class InstantFleet:
    """The edge's and Ray Serve's APIs: what is declared is up at once."""

    def __init__(self) -> None:
        self.address = RayAddress("", "http://head", None)
        self.table = RoutingTable()
        self.running: dict[str, ApplicationSpec] = {}
        self.started: list[str] = []

    # The edge.

    def publish(self, table: RoutingTable) -> None:
        self.table = table
        self._check()

    def state(self) -> EdgeState:
        replicas = tuple(
            ReplicaState(f"{name}-{n}", one.spec.endpoint, one.spec.deployment, one.spec.revision,
                         "127.0.0.1", 1, True, False, 0)
            for name, one in self.running.items() for n in range(one.instances)
        )
        return EdgeState(digest_of_table(self.table), replicas, (), {})

    # Ray Serve.

    def put(self, applications: Iterable[ApplicationSpec]) -> None:
        wanted = {one.name: one for one in applications}
        self.started += sorted(wanted.keys() - self.running.keys())
        self.running = wanted
        self._check()

    def status(self, max_age_s: float = 0.0) -> dict[str, ApplicationState]:
        return {name: ApplicationState("RUNNING", "", 1) for name in self.running}

    def _check(self) -> None:
        """Every revision that requests are sent to runs."""
        for endpoint in self.table.endpoints:
            for one in endpoint.deployments:
                assert f"{endpoint.name}.{one.name}.{one.revision}" in self.running


def live(home: Path, code: Callable[[str], Path], crash_at: int) -> tuple[int, str]:
    """Live a history with a crash at this checkpoint; return how many there are, and its end."""
    fleet = InstantFleet()
    plane = Plane(home, InstantJobs())
    plane.context.serve = plane.context.edge = lambda: fleet   # type: ignore[assignment,return-value]
    plane.context.workspace.registration_key.write_text("key")
    (plane.workspace.run / "edge.json").write_text(json.dumps({"url": "http://127.0.0.1:1"}))
    passed = 0

    def checkpoint(name: str) -> None:
        nonlocal passed
        passed += 1
        if passed == crash_at:
            raise CrashError(name)

    plane.context.checkpoint = checkpoint
    keeper = Fleet(plane.context)

    def go_on() -> None:
        nonlocal keeper
        while True:
            try:
                plane.turn()
                keeper.turn_serve()
                keeper.turn_edge()
            except CrashError:
                plane.restart()
                keeper = Fleet(plane.context)
            else:
                if not plane.runner.due():
                    return

    def put(path: str, body: dict[str, Any]) -> None:
        plane.http.put(path, json=body).raise_for_status()
        go_on()

    def put_deployment(version: str, instances: int) -> None:
        code = {"codeId": f"azureml:c:{version}", "scoringScript": "score.py"}
        put("/v1/onlineEndpoints/digits/deployments/blue", {
            "sku": {"capacity": instances}, "properties": {"codeConfiguration": code},
        })

    try:
        for version in ("1", "2"):
            source = str(code(f"VERSION = {version}"))
            put(f"/v1/codes/c/versions/{version}", {"properties": {"codeUri": source}})
        put("/v1/onlineEndpoints/digits", {"properties": {"authMode": "Key"}})
        put_deployment("1", 1)
        put("/v1/onlineEndpoints/digits", {"properties": {"traffic": {"blue": 100}}})
        put_deployment("2", 1)
        put_deployment("2", 3)
        (endpoint,) = fleet.table.endpoints
        (application,) = fleet.running.values()
        before = (endpoint.traffic, application.instances, len(fleet.started))
        plane.http.delete("/v1/onlineEndpoints/digits").raise_for_status()
        go_on()
        operations = plane.database.engine.connect().exec_driver_sql(
            "SELECT kind, status FROM operations ORDER BY sequence"
        )
        return passed, str((before, list(operations), fleet.table, fleet.running))
    finally:
        plane.close()


def test_a_crash_at_any_point_ends_as_if_there_had_been_none(
    tmp_path: Path, make_code: Callable[[str], Path]
) -> None:
    points, undisturbed = live(tmp_path / "none", make_code, 0)
    assert points >= 40
    assert "Failed" not in undisturbed
    for point in range(1, points + 1, STRIDE):
        _, ended = live(tmp_path / f"p{point}", make_code, point)
        assert ended == undisturbed, f"a crash at point {point} of {points}"
