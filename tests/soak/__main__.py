"""`make soak`: an endpoint under load for minutes, while everything behind it dies or changes.

Exits with 0 only if no request failed but those that a killed HAProxy may lose. Prints what became
of every request, by the fault under way.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.soak.load import OpenLoad
from tests.soak.record import record
from tests.soak.stage import Stage


class Soak:
    """Faults on a stage, one after another, each with its time."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.spans: list[tuple[str, float, float]] = []
        self.key = ""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note when something was under way."""
        began_s = time.time()
        print(f"{name} …", flush=True)
        yield
        self.spans.append((name, began_s, time.time()))

    def repeat(self, name: str, count: int, fault: Callable[[], object]) -> None:
        """Strike several times."""
        for number in range(count):
            with self.step(f"{name} {number + 1}"):
                fault()

    def rotate_key(self, kind: str, other: str) -> None:
        """Regenerate one key while the client holds the other."""
        self.key = self.stage.keys()[other]
        self.stage.inferay(
            "online-endpoint", "regenerate-keys", "-n", "soak", "--key-type", kind
        )

    def run(self) -> None:
        """Strike with everything."""
        stage = self.stage
        self.repeat("replica SIGKILL", 6, stage.kill_replica)
        self.repeat("Serve controller SIGKILL", 2, stage.kill_serve_controller)
        self.repeat("control plane SIGKILL", 2, stage.kill_control)
        self.repeat("edge process SIGKILL", 2, stage.kill_edge_process)
        self.repeat("HAProxy reload", 2, stage.reload_haproxy)
        with self.step("green created"):
            stage.deploy("green", "instance_count=1")
        for number in range(20):
            with self.step(f"traffic change {number + 1}"):
                share = 5 * (number % 5)
                stage.inferay("online-endpoint", "update", "-n", "soak", "--traffic",
                              f"blue={100 - share} green={share}")
        for number in range(3):
            kinds = ("secondary", "primary") if number % 2 == 0 else ("primary", "secondary")
            with self.step(f"key rotation {number + 1}"):
                self.rotate_key(kinds[0], f"{kinds[1]}Key")
        with self.step("scale 2 to 3"):
            stage.inferay("online-deployment", "update", "-n", "blue", "-e", "soak", "--set",
                          "instance_count=3")
            stage.wait_for_replicas("blue", 3)
        with self.step("scale 3 to 1"):
            stage.inferay("online-deployment", "update", "-n", "blue", "-e", "soak", "--set",
                          "instance_count=1")
            stage.wait_for_replicas("blue", 1)
        with self.step("scale 1 to 2"):
            stage.inferay("online-deployment", "update", "-n", "blue", "-e", "soak", "--set",
                          "instance_count=2")
            stage.wait_for_replicas("blue", 2)
        for number in range(2):
            with self.step(f"rolling update {number + 1}"):
                stage.deploy("blue", f"environment_variables.VERSION={number + 2}", update=True)
        with self.step("update whose init() raises"):
            said = stage.deploy(
                "blue", "environment_variables.BREAK=1", update=True, fails=True
            )
            assert "RuntimeError: this version is broken" in said, said
        with self.step("mirror to a target that hangs"):
            stage.deploy("hung", "environment_variables.HANG=1", "instance_count=1")
            stage.inferay("online-endpoint", "update", "-n", "soak", "--mirror-traffic", "hung=50")
            time.sleep(20)
            stage.inferay("online-endpoint", "update", "-n", "soak", "--mirror-traffic", "hung=0")
        with self.step("HAProxy SIGKILL"):
            stage.kill_haproxy()


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=600.0, help="at least")
    parser.add_argument("--not-retried", action="store_true",
                        help="leave inferay.retry_sent_requests off")
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    options = parser.parse_args()
    stage = Stage(Path(tempfile.mkdtemp(prefix="soak-")))
    try:
        return _run(stage, options)
    finally:
        stage.inferay("down")
        shutil.rmtree(stage.folder)


def _run(stage: Stage, options: argparse.Namespace) -> int:
    stage.prepare(is_retried=not options.not_retried)
    stage.inferay("online-endpoint", "create", "-f", "endpoint.yml")
    stage.inferay("online-deployment", "create", "-f", "deployment.yml", "--all-traffic")
    stage.wait_for_replicas("blue", 2)
    soak = Soak(stage)
    soak.key = stage.keys()["primaryKey"]
    load = OpenLoad(stage.port, stage.workspace.ca_certificate, "/endpoints/soak/score",
                    lambda: soak.key, options.rate)
    began_s = time.time()
    with load:
        with soak.step("nothing"):
            time.sleep(10)
        soak.run()
        with soak.step("nothing, at the end"):
            time.sleep(max(0.0, options.seconds - (time.time() - began_s)))
    took_s = time.time() - began_s
    tally = load.tally
    by_fault = Counter(
        (next((name for name, begin_s, end_s in reversed(soak.spans)
               if begin_s <= sent_s <= end_s), "between"), outcome)
        for sent_s, outcome in tally.bad
    )
    print(f"{tally.outcomes.total()} requests in {took_s:.0f} s: {dict(tally.outcomes)}; "
          f"p50 {tally.percentile_ms(0.5):.1f} ms, p99 {tally.percentile_ms(0.99):.1f} ms")
    for (name, outcome), count in sorted(by_fault.items()):
        print(f"  {count} {outcome} during {name}")
    if not options.no_record:
        record(tally, by_fault, soak.spans, took_s, options.rate, not options.not_retried)
    unexpected = sum(
        count for (name, _), count in by_fault.items() if name != "HAProxy SIGKILL"
    )
    return 0 if unexpected == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
