"""One trial: a job under faults, then the independent checker's verdict.

The driver is the real one, `python -m inferay.jobs run`, started again whenever it dies, as the
control plane does.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from inferay.engine.batch.spec import JobSettings, JobSpec, WorkerSpec
from tests.chaos.checker import faults
from tests.chaos.cluster import Cluster
from tests.chaos.far import Far
from tests.chaos.workload import CALL_BYTES, SCRIPTS, Fault, Plan

#: A trial that takes longer is stuck.
TRIAL_S = 150.0

#: How often the job is looked at.
LOOK_S = 0.01

#: A look through all processes for one to kill takes a core's time from the job.
SEARCH_S = 0.1

#: After the job, everything that belongs to it has to be gone within this time.
LEFT_S = 20.0

#: Exit code of a driver that a newer one has overtaken.
SUPERSEDED = 130


@dataclass
class Verdict:
    """How a trial went.

    Attributes:
        plan: What it was.
        wrong: What is wrong, in words; nothing if the output is exact.
        kills: Faults that struck, by kind.
        log: What happened when, for a person.
        seconds: From the first driver's start to the last one's end.
        redone: Items scored more than once.
        far_faults: Requests to S3 that met a fault.
    """

    plan: Plan
    wrong: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    seconds: float = 0.0
    redone: int = 0
    far_faults: int = 0


class Trial:
    """A trial in a folder of its own; `run` is called once.

    Args:
        cluster: Where its workers run.
        plan: What it is.
        folder: For what it needs on this machine.
        far: S3, if the plan wants it.
    """

    def __init__(self, cluster: Cluster, plan: Plan, folder: Path, far: Far | None = None) -> None:
        self._cluster, self._plan, self._folder = cluster, plan, folder
        self._far = far if plan.storage == "s3" else None
        self._prefix = f"trial-{plan.seed}"
        self._calls = folder / "calls"
        self._output = folder / "output"
        self._verdict = Verdict(plan)
        self._drivers: list[subprocess.Popen[bytes]] = []
        self._thaws: list[tuple[float, Callable[[], None]]] = []
        self._began_s = 0.0

    def run(self) -> Verdict:
        """Run it; blocks; never raises for what the job does."""
        spec = self._write()
        far_faults = self._far.faults if self._far else 0
        if self._far:
            self._far.misbehave(self._plan.fault_rate, self._plan.seed)
        self._began_s = time.monotonic()
        self._start_driver(spec)
        due = list(self._plan.faults)
        while not self._is_over(spec):
            if due and self._is_as_far_as(due[0].at):
                if self._strike(due[0], spec):
                    due.pop(0)
                else:
                    time.sleep(SEARCH_S)
            self._thaw()
            if time.monotonic() - self._began_s > TRIAL_S:
                self._verdict.wrong.append(f"it did not end within {TRIAL_S:g} s")
                break
            time.sleep(LOOK_S)
        self._verdict.seconds = time.monotonic() - self._began_s
        if self._far:
            self._verdict.far_faults = self._far.faults - far_faults
        self._end()
        return self._verdict

    # -- inside

    def _write(self) -> Path:
        (self._folder / "code").mkdir()
        (self._folder / "code" / "score.py").write_text(SCRIPTS[self._plan.script])
        self._calls.touch()
        is_table = self._plan.script == "table"
        size = self._plan.mini_batch_size
        spec = JobSpec(
            name=f"chaos-{self._plan.seed}", input=self._write_input(), input_type="uri_folder",
            output=self._place("output"), work=self._place("work"),
            logs=str(self._folder / "logs"), code=str(self._folder / "code"),
            scoring_script="score.py", workers=WorkerSpec(count=self._plan.workers),
            settings=JobSettings(
                mini_batch_size=f"{size} rows" if is_table else size, max_retries=1, timeout_s=30.0,
                split="rows" if is_table else "file", table="pandas" if is_table else "",
                output_action="summary_only" if self._plan.script == "files" else "append_row",
                environment_variables={
                    "CALLS": str(self._calls), "NAP_S": str(self._plan.nap_s),
                },
            ),
        )
        path = self._folder / "spec.json"
        path.write_bytes(spec.to_bytes())
        return path

    def _write_input(self) -> str:
        items = self._folder / "items"
        self._plan.write_input(items)
        if self._far is None or not self._plan.has_far_input:
            return str(items)
        self._far.upload(items, f"{self._prefix}/items")
        return self._far.uri(f"{self._prefix}/items")

    def _place(self, name: str) -> str:
        if self._far is None:
            return str(self._folder / name)
        return self._far.uri(f"{self._prefix}/{name}")

    def _start_driver(self, spec: Path) -> None:
        with open(self._folder / "driver.log", "ab") as log:
            self._drivers.append(subprocess.Popen(
                [sys.executable, "-P", "-m", "inferay.jobs", "run", str(spec)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "RAY_ADDRESS": self._cluster.address},
            ))

    def _is_over(self, spec: Path) -> bool:
        """Return whether the last driver has ended the job; start the next one if it was killed.

        One that was frozen before it claimed the job may come back and claim it after a later one.
        """
        *earlier, code = (driver.poll() for driver in self._drivers)
        if code is None or (code == SUPERSEDED and None in earlier):
            return False
        if code < 0:
            self._say(f"driver {len(self._drivers)} is followed by another one")
            self._start_driver(spec)
            return False
        if code and (code != SUPERSEDED or 0 not in earlier):
            self._verdict.wrong.append(f"driver {len(self._drivers)} ended with exit code {code}")
        return True

    def _is_as_far_as(self, share: float) -> bool:
        """Return whether this share of items is scored; 1 is when the output begins to appear."""
        scored = self._calls.stat().st_size // CALL_BYTES
        is_scored = scored >= share * (self._plan.items - self._plan.poison)
        return is_scored and (share < 1.0 or self._has_output())

    def _has_output(self) -> bool:
        if self._far is not None:
            return self._far.has(f"{self._prefix}/output")
        return self._output.exists() and any(self._output.iterdir())

    def _strike(self, fault: Fault, spec: Path) -> bool:
        """Let the fault happen; False if there is nothing to strike just now."""
        struck = {
            "worker": self._kill_worker, "actor": self._kill_actor, "driver": self._kill_driver,
            "zombie driver": self._freeze_driver, "node": self._kill_node,
            "zombie node": self._freeze_node,
        }[fault.kind](fault, spec)
        if struck:
            self._verdict.kills[fault.kind] += 1
            self._say(f"{fault.kind} at {fault.at:.2f}: {struck}")
        return bool(struck)

    def _kill_worker(self, fault: Fault, _: Path) -> str:
        return self._kill_process(fault, "inferay.engine.batch.child")

    def _kill_actor(self, fault: Fault, _: Path) -> str:
        return self._kill_process(fault, "ray::WorkerActor")

    def _kill_process(self, fault: Fault, title: str) -> str:
        found = [p for p in self._cluster.processes() if title in _title(p)]
        if not found:
            return ""
        process = found[int(fault.choice * len(found))]
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        return f"SIGKILL to {process.pid}, one of {len(found)}"

    def _kill_driver(self, _: Fault, __: Path) -> str:
        driver = self._drivers[-1]
        if driver.poll() is not None:
            return ""
        driver.kill()
        return f"SIGKILL to {driver.pid}"

    def _freeze_driver(self, fault: Fault, spec: Path) -> str:
        driver = self._drivers[-1]
        if driver.poll() is not None:
            return ""
        process = psutil.Process(driver.pid)
        process.suspend()
        self._thaws.append((time.monotonic() + fault.frozen_s, process.resume))
        self._start_driver(spec)
        return f"SIGSTOP to {driver.pid} for {fault.frozen_s:.1f} s, and another driver"

    def _kill_node(self, fault: Fault, _: Path) -> str:
        node = self._pick_node(fault)
        self._cluster.kill(node)
        return "SIGKILL to all of a node"

    def _freeze_node(self, fault: Fault, _: Path) -> str:
        node = self._pick_node(fault)
        stack = ExitStack()
        stack.enter_context(self._cluster.frozen(node))
        self._thaws.append((time.monotonic() + fault.frozen_s, stack.close))
        return f"SIGSTOP to all of a node for {fault.frozen_s:.1f} s"

    def _pick_node(self, fault: Fault) -> object:
        """Return one of the nodes that the job's workers are on, if it has any."""
        nodes = self._cluster.nodes()
        used = [
            node for node in nodes
            if any("ray::WorkerActor" in _title(p) for p in self._cluster.processes_of(node))
        ]
        choice = used or nodes
        return choice[int(fault.choice * len(choice))]

    def _thaw(self, *, all_: bool = False) -> None:
        now_s = time.monotonic()
        for thaw in list(self._thaws):
            if all_ or now_s >= thaw[0]:
                self._thaws.remove(thaw)
                with contextlib.suppress(psutil.NoSuchProcess):
                    thaw[1]()
                self._say("thawed")

    def _end(self) -> None:
        """Let what is frozen come back, see that all is gone, and check the output."""
        self._thaw(all_=True)
        self._cluster.settle()
        for number, driver in enumerate(self._drivers, 1):
            try:
                code = driver.wait(LEFT_S)
            except subprocess.TimeoutExpired:
                self._verdict.wrong.append(f"driver {number} does not end")
                driver.kill()
                driver.wait()
                continue
            if code > 0 and code != SUPERSEDED and number < len(self._drivers):
                self._verdict.wrong.append(f"driver {number} ended with exit code {code}")
        left = self._wait_for_end_of_workers()
        if left:
            self._verdict.wrong.append(f"processes are left: {left}")
        self._verdict.redone = (
            self._calls.stat().st_size // CALL_BYTES - self._plan.items + self._plan.poison
        )
        if self._far is not None:
            self._far.download(f"{self._prefix}/output", self._output)
        self._verdict.wrong += faults(self._folder / "items", self._output, self._plan.script)

    def _wait_for_end_of_workers(self) -> list[str]:
        until_s = time.monotonic() + LEFT_S
        while True:
            left = [
                title for process in self._cluster.processes()
                for title in [_title(process)]
                if "inferay.engine.batch.child" in title or "ray::WorkerActor" in title
            ]
            if not left or time.monotonic() > until_s:
                return left
            time.sleep(0.1)

    def _say(self, what: str) -> None:
        self._verdict.log.append(f"{time.monotonic() - self._began_s:6.2f} s  {what}")


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
