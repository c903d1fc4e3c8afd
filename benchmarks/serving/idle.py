"""What a replica costs while nobody calls it, and what its start consists of."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks.report import Figure, Line
from benchmarks.serving import models, ours, peers
from tests.edges import started

#: How long the CPU of idle processes is counted.
IDLE_S = 10.0

#: Tells when the script is reached, and when its model is there.
COLD_SCRIPT = """
import json, time
from pathlib import Path

at = Path(__file__).parent
(at / "reached").write_text(repr(time.time()))
from benchmarks.serving import models

def init():
    global model
    model = models.load({name!r})
    (at / "loaded").write_text(repr(time.time()))

def run(data):
    return model(json.loads(data))
"""


def deployments(folder: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Measure many deployments on one edge, as plain processes."""
    with ExitStack() as stack:
        edge = stack.enter_context(started(folder))
        pids = [
            stack.enter_context(
                ours.replica(
                    edge, folder, f"e{number}", "blue", ours.SCRIPTS["echo"], f"e{number}-blue"
                )
            )
            for number in range(options.count)
        ]
        edge_pids = [edge.process.pid]   # HAProxy is its child
        edge.wait_up(*(f"e{number}-blue" for number in range(options.count)))
        before_s = {pid: cpu_s(pid) for pid in pids + edge_pids}
        time.sleep(IDLE_S)   # this is what is measured
        used = {pid: (cpu_s(pid) - before_s[pid]) / IDLE_S for pid in before_s}
        memory_mb = [psutil.Process(pid).memory_full_info().pss / 1e6 for pid in pids]
    yield Figure(
        "memory of an idle replica", f"proportional set size of each of {options.count} plain "
        "processes, echo model, median (range)",
        f"{statistics.median(memory_mb):.0f} MB ({min(memory_mb):.0f} to {max(memory_mb):.0f})",
        "-",
    )
    yield Figure(
        "CPU of idle replicas", f"{options.count} replicas together, and the edge with HAProxy, "
        f"during {IDLE_S:g} s without a request; they announce themselves every 2 s",
        f"{sum(used[pid] for pid in pids):.3f} cores; edge "
        f"{sum(used[pid] for pid in edge_pids):.3f} cores", "-",
    )


def cold(folder: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Measure the parts of a start: each is the median of the rounds."""
    for model in models.ANSWERS:
        parts: dict[str, list[float]] = {}
        for number in range(options.rounds):
            for name, seconds in _start_once(folder / f"{model}{number}", model).items():
                parts.setdefault(name, []).append(seconds)
        yield Figure(
            f"cold start, {model}", "from the start of a replica's process to the first answer "
            "through the edge; process: an interpreter that does nothing",
            ", ".join(f"{name} {statistics.median(one):.2f} s" for name, one in parts.items()),
            "-",
        )


def _start_once(folder: Path, model: str) -> dict[str, float]:
    folder.mkdir()
    script = COLD_SCRIPT.format(name=model)
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    process_s = time.perf_counter() - began_s
    with ours.serving(folder, {}) as stage, ExitStack() as stack:
        stage.endpoints = [model]
        stage.publish(0)
        began_s = time.time()
        stack.enter_context(ours.replica(stage.edge, folder, model, "blue", script, "cold"))
        code = folder / "cold"
        while not (code / "state.json").exists():
            time.sleep(0.002)
        ready_s = time.time()
        stage.edge.wait_up("cold")
        up_s = time.time()
        stage.target(model, peers.BODY, models.ANSWERS[model])
        answered_s = time.time()
        reached_s = float((code / "reached").read_text())
        loaded_s = float((code / "loaded").read_text())
    return {
        "process": process_s, "imports": reached_s - began_s - process_s,
        "model": loaded_s - reached_s, "listening and in at the edge": ready_s - loaded_s,
        "up at the edge": up_s - ready_s, "first call": answered_s - up_s,
    }


def cpu_s(pid: int) -> float:
    """Return what a process and all that it has started have used so far."""
    one = psutil.Process(pid)
    times = [each.cpu_times() for each in [one, *one.children(recursive=True)]]
    return float(sum(each.user + each.system for each in times))
