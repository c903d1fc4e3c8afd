from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from inferay.control import reconcile
from inferay.control.operations import Steps
from inferay.control.reconcile import Reconciler
from inferay.errors import Unavailable
from tests.control.conftest import Plane


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = threading.Event()
    for _ in range(1000):
        if is_true():
            return
        deadline.wait(0.01)
    raise AssertionError("waited too long")


def test_the_loop_goes_on_while_a_head_takes_long_to_start(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "LOOK_S", 0.0)
    is_starting, may_end = threading.Event(), threading.Event()

    def revive(workspace: object) -> bool:
        is_starting.set()
        may_end.wait(30)
        return False

    monkeypatch.setattr(reconcile, "revive_ray", revive)
    reconciler = Reconciler(plane.context)
    reconciler.start()
    try:
        assert is_starting.wait(10)
        plane.http.put("/v1/batchEndpoints/digits", json={"properties": {}})
        address = "/v1/batchEndpoints/digits"
        wait_until(lambda: plane.http.get(address).json()["properties"]["provisioningState"]
                   == "Succeeded")
    finally:
        reconciler.stop()   # does not wait for the head
        may_end.set()


def test_a_head_that_does_not_start_is_tried_again(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "LOOK_S", 0.0)
    outcomes = [Unavailable("no"), OSError("worse")]
    tried = threading.Event()

    def revive(workspace: object) -> bool:
        if outcomes:
            raise outcomes.pop()
        tried.set()
        return True

    monkeypatch.setattr(reconcile, "revive_ray", revive)
    reconciler = Reconciler(plane.context)
    reconciler.start()
    try:
        assert tried.wait(10)
    finally:
        reconciler.stop()


def test_the_loop_outlives_a_turn_that_fails(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconcile, "TURN_S", 0.01)
    reconciler = Reconciler(plane.context)
    turns: list[int] = []

    def look() -> None:
        turns.append(1)
        if len(turns) == 1:
            raise RuntimeError("once")

    monkeypatch.setattr(reconciler._watcher, "look", look)
    reconciler.start()
    try:
        wait_until(lambda: len(turns) > 2)
    finally:
        reconciler.stop()
    assert "a turn of the loop failed" in caplog.text


def test_an_operation_that_cannot_even_fail_is_said_in_the_log(
    plane: Plane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plane.http.put("/v1/batchEndpoints/digits", json={"properties": {}})
    plane.runner._steps = Steps()   # as after a downgrade: nobody knows the kind
    plane.runner.run_due()
    wait_until(lambda: all(one.done() for one in plane.runner._under_way.values()))
    plane.runner.run_due()
    assert "could not be driven on" in caplog.text
