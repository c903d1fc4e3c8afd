"""What many deployments on Ray Serve cost while nobody calls them, and how long a change takes."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil

from benchmarks.report import Figure, Line
from benchmarks.serving.idle import IDLE_S, cpu_s
from tests.edges import wait_until
from tests.soak.stage import Stage, listener

#: Numbers of deployments, of one endpoint each, that are looked at on the way.
COUNTS = (1, 10)

#: Of all of them together, on two cores.
LIMIT_S = 600.0


def deployments(folder: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Measure the product with ever more deployments of one instance."""
    stage = Stage(folder / "product")
    try:
        stage.prepare(is_retried=False)
        made = 0
        for count in sorted({*(one for one in COUNTS if one < options.count), options.count}):
            for number in range(made, count):
                _create(stage, f"idle-{number}")
            made = count
            wait_until(partial(_are_up, stage, count), f"{count} replicas", LIMIT_S)
            yield from _idle(stage, count)
            yield _update(stage, count, options.rounds)
    finally:
        stage.inferay("down")


def _create(stage: Stage, endpoint: str) -> None:
    stage.inferay("online-endpoint", "create", "-n", endpoint, "-f", "endpoint.yml")
    stage.inferay(
        "online-deployment", "create", "-f", "deployment.yml", "-e", endpoint, "--no-wait",
        "--set", "instance_count=1",
    )


def _are_up(stage: Stage, count: int) -> bool:
    return len(_up(stage)) == count


def _up(stage: Stage) -> list[int]:
    return [one.port for one in stage.edge().replicas if one.is_up]


def _idle(stage: Stage, count: int) -> Iterator[Line]:
    controller = stage.serve_controller()
    assert controller is not None
    replicas = [listener(port) for port in _up(stage)]
    parts = {
        "Serve's controller": [controller], "control plane": [stage.process("control").pid],
        "edge with HAProxy": [stage.process("edge").pid], "replicas together": replicas,
    }
    before_s = {name: sum(map(cpu_s, pids)) for name, pids in parts.items()}
    time.sleep(IDLE_S)   # this is what is measured
    used = {
        name: (sum(map(cpu_s, pids)) - before_s[name]) / IDLE_S for name, pids in parts.items()
    }
    memory_mb = [psutil.Process(pid).memory_full_info().pss / 1e6 for pid in replicas]
    yield Figure(
        f"{count} idle on Serve: CPU", f"during {IDLE_S:g} s without a request, after `up`, by "
        "whom", ", ".join(f"{name} {cores:.3f} cores" for name, cores in used.items()), "-",
    )
    yield Figure(
        f"{count} idle on Serve: memory", "proportional set size of a replica's process, median "
        "(range)", f"{statistics.median(memory_mb):.0f} MB ({min(memory_mb):.0f} to "
        f"{max(memory_mb):.0f})", "-",
    )


def _update(stage: Stage, count: int, rounds: int) -> Line:
    took_s: dict[str, list[float]] = {"new version": [], "traffic": []}
    for number in range(rounds):
        with _timed(took_s["new version"]):
            stage.inferay("online-deployment", "update", "-n", "blue", "-e", "idle-0", "--set",
                          f"environment_variables.VERSION=v{count}-{number}")
        with _timed(took_s["traffic"]):
            stage.inferay("online-endpoint", "update", "-n", "idle-0", "--traffic",
                          f"blue={100 * (number % 2)}")
    return Figure(
        f"{count} on Serve: update", "the command, from its start to its end, median (range): a "
        "rolling update to new processes; a change of traffic",
        ", ".join(
            f"{name} {statistics.median(each):.1f} s ({min(each):.1f} to {max(each):.1f})"
            for name, each in took_s.items()
        ), "-",
    )


@contextlib.contextmanager
def _timed(into: list[float]) -> Iterator[None]:
    began_s = time.perf_counter()
    yield
    into.append(time.perf_counter() - began_s)
