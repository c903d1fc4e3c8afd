"""What the driver costs: CPU for each mini-batch, memory, and its load with 1,000 workers.

The driver is the real one, over a listing that is made up. Each figure is taken in a process of
its own: `python -m benchmarks.driver NAME COUNT FOLDER` prints it as JSON.
"""

from __future__ import annotations

import heapq
import json
import queue
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import Figure
from benchmarks.works import SCRIPTS, make_files
from inferay.engine.batch.driver import Driver
from inferay.engine.batch.messages import (
    Done,
    Lease,
    Receipt,
    ReceiptArrived,
    WorkerReady,
    WorkerSeen,
)
from inferay.engine.batch.pool import Events, LocalPool, SettingsOf
from inferay.engine.batch.spec import JobSettings, JobSpec, WorkerSpec
from inferay.engine.batch.units import Unit

#: What a mini-batch costs in the figure of memory: 10 files of 5 ms, so that a lease holds few of
#: them and the journal has many records.
MINI_BATCH_S = 0.05

#: How long 1,000 workers are simulated, and how long each of their mini-batches takes.
SIMULATED_S = 15.0
WORKERS = 1_000
SIMULATED_MINI_BATCH_S = 0.1


class Noting(Driver):
    """A driver that notes its CPU time after each phase."""

    sealed_s = dispatched_s = seconds = 0.0

    def _dispatch(self, *arguments: Any, **named: Any) -> None:
        self.sealed_s = time.process_time()
        super()._dispatch(*arguments, **named)
        self.dispatched_s = time.process_time()


class MadeUp(Noting):
    """The same over so many files that are not there."""

    count = 0

    def _list(self) -> tuple[str, Iterator[Unit]]:
        root, _ = super()._list()
        return root, (Unit(f"{n // 10_000:05d}/file{n:08d}", 1, 0) for n in range(self.count))


class InstantPool:
    """Workers that answer at once, and say that each mini-batch took `MINI_BATCH_S`."""

    def __init__(self, settings_of: SettingsOf, events: Events) -> None:
        self._settings_of, self._events = settings_of, events
        self._segments: dict[int, Any] = {}
        self._names: dict[int, str] = {}

    def start(self, slot: int) -> None:
        settings = self._settings_of(slot, 0)
        self._names[slot] = f"{settings.segment}.rows"
        path = Path(settings.store) / self._names[slot]
        path.parent.mkdir(exist_ok=True)
        self._segments[slot] = open(path, "wb")  # noqa: SIM115 (`close` closes it)
        self._events.put(WorkerReady(slot))

    def lease(self, slot: int, lease: Lease) -> None:
        count = lease.range.stop - lease.range.first
        segment = self._segments[slot]
        start = segment.tell()
        segment.write(b"x\n" * count)
        segment.flush()
        done = Done(lease.range, self._names[slot], start, segment.tell(), count, count * 10)
        wall_s = count * MINI_BATCH_S
        receipt = Receipt(lease.id, (done,), (), None, wall_s, wall_s)
        self._events.put(ReceiptArrived(slot, receipt))

    def kill(self, slot: int) -> None:
        raise NotImplementedError

    def release(self, slot: int) -> None:
        """Nothing is held."""

    def look(self, slot: int) -> None:
        self._events.put(WorkerSeen(slot, None, 0.0, 0))

    def waiting_for(self) -> str | None:
        return None

    def close(self) -> None:
        for segment in self._segments.values():
            segment.close()


class TimedPool:
    """Simulated workers that answer when their leases would be done, in real time."""

    def __init__(self, settings_of: SettingsOf, events: Events) -> None:
        self._events = events
        self._due: list[tuple[float, int, int, Receipt]] = []
        self._free_s: dict[int, float] = {}
        self._changed = threading.Condition()
        self._is_closed = False
        self.leases = 0
        self.cpu_s = 0.0
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def start(self, slot: int) -> None:
        self._free_s[slot] = time.monotonic()
        self._events.put(WorkerReady(slot))

    def lease(self, slot: int, lease: Lease) -> None:
        self.leases += 1
        count = lease.range.stop - lease.range.first
        wall_s = count * SIMULATED_MINI_BATCH_S
        done = Done(lease.range, "", 0, 0, count, count)
        receipt = Receipt(lease.id, (done,), (), None, wall_s, wall_s)
        with self._changed:
            due_s = max(self._free_s[slot], time.monotonic()) + wall_s
            self._free_s[slot] = due_s
            heapq.heappush(self._due, (due_s, lease.id, slot, receipt))
            self._changed.notify()

    def kill(self, slot: int) -> None:
        raise NotImplementedError

    def release(self, slot: int) -> None:
        """Nothing is held."""

    def look(self, slot: int) -> None:
        self._events.put(WorkerSeen(slot, None, 0.0, 0))

    def waiting_for(self) -> str | None:
        return None

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _answer(self) -> None:
        with self._changed:
            while not self._is_closed:
                now_s = time.monotonic()
                while self._due and self._due[0][0] <= now_s:
                    _, _, slot, receipt = heapq.heappop(self._due)
                    self._events.put(ReceiptArrived(slot, receipt))
                self._changed.wait(self._due[0][0] - now_s if self._due else None)
        self.cpu_s = time.thread_time()


def w5(folder: Path, scale: float) -> Figure:
    """Measure the driver's CPU for each of 1M mini-batches that do nothing."""
    found = _in_process("cpu", int(1_000_000 * scale), folder)
    value = f"{found['dispatch_us']:.2f} µs; with the output {found['us']:.2f} µs"
    what = (
        f"driver's CPU per mini-batch, {found['count']:,} that do nothing, 2 worker processes: "
        f"leases, receipts and journal, the threads that read the workers' sockets included; "
        f"with assembling the output; the listing took {found['listing_us']:.2f} µs each"
    )
    return Figure("w5", what, value, "at most 2 µs")


def memory(folder: Path, scale: float) -> Figure:
    """Measure the driver's memory with 10M files, beside ten."""
    many = _in_process("memory", int(10_000_000 * scale), folder)
    empty = _in_process("memory", 10, folder)
    over_mb, empty_mb = (many["peak_kb"] - empty["peak_kb"]) / 1024, empty["peak_kb"] / 1024
    what = (
        f"peak of the driver's memory with {many['count']:,} listed files, beside ten: listing, "
        f"dispatch ({many['records']:,} commit records) and publishing, workers that answer at "
        f"once; {many['wall_s']:.0f} s"
    )
    return Figure("memory", what, f"{over_mb:.1f} MB over {empty_mb:.0f}", "at most 30 MB over")


def workers(folder: Path, scale: float) -> Figure:
    """Measure the driver's load with 1,000 workers that are simulated in real time."""
    found = _in_process("load", int(WORKERS * scale), folder)
    call_ms = _in_process("call", 2_000, folder)["call_ms"]
    load = found["load"] + found["leases_per_s"] * call_ms / 1e3
    what = (
        f"driver's load with {found['workers']:,} simulated workers, mini-batches of "
        f"{SIMULATED_MINI_BATCH_S:g} s: {found['leases_per_s']:.0f} leases/s; "
        f"{found['load']:.2f} cores for dispatch and journal, measured; {call_ms:.2f} ms of CPU "
        "for each actor call, measured on Ray; workers were busy "
        f"{found['busy']:.1%} of the time"
    )
    return Figure("workers", what, f"{load:.2f} cores", "below 1 core")


def _in_process(name: str, count: int, folder: Path) -> dict[str, Any]:
    scratch = folder / f"{name}-{count}"
    scratch.mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.driver", name, str(count), str(scratch)],
        capture_output=True, text=True, check=False,
    )
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr[-4000:])
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def _spec(folder: Path, *, workers: int, mini_batch_size: int) -> JobSpec:
    (folder / "input").mkdir(exist_ok=True)
    return JobSpec(
        name="bench", input=str(folder / "input"), input_type="uri_folder",
        output=str(folder / "rows"), work=str(folder / "work"), logs=str(folder / "logs"),
        code=str(SCRIPTS), scoring_script="nothing.py",
        settings=JobSettings(mini_batch_size=mini_batch_size), workers=WorkerSpec(workers),
    )


def _run(driver: Noting) -> None:
    result = driver.run()
    assert result.status == "Completed", result
    driver.seconds = result.seconds


def _made_up(
    pool: Callable[[SettingsOf, Events], Any], count: int, folder: Path, *, workers: int,
    mini_batch_size: int,
) -> MadeUp:
    driver = MadeUp(_spec(folder, workers=workers, mini_batch_size=mini_batch_size), pool)
    driver.count = count
    _run(driver)
    return driver


def _cpu(count: int, folder: Path) -> dict[str, Any]:
    make_files(folder / "input", count, script="nothing", text=lambda number: "")
    began_s = time.process_time()
    driver = Noting(_spec(folder, workers=2, mini_batch_size=1), LocalPool)
    _run(driver)
    return {
        "count": count, "listing_us": (driver.sealed_s - began_s) / count * 1e6,
        "dispatch_us": (driver.dispatched_s - driver.sealed_s) / count * 1e6,
        "us": (time.process_time() - driver.sealed_s) / count * 1e6,
    }


def _memory(count: int, folder: Path) -> dict[str, Any]:
    began_s = time.monotonic()
    _made_up(InstantPool, count, folder, workers=2, mini_batch_size=10)
    from inferay.engine.batch.journal import valid_records
    from inferay.engine.batch.store import LocalStore

    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall_s = time.monotonic() - began_s
    records = sum(1 for _ in valid_records(LocalStore(folder / "work")))
    return {"count": count, "peak_kb": peak_kb, "records": records, "wall_s": wall_s}


def _load(workers: int, folder: Path) -> dict[str, Any]:
    pools: list[TimedPool] = []

    def make(settings_of: SettingsOf, events: Events) -> TimedPool:
        pools.append(TimedPool(settings_of, events))
        return pools[0]

    count = int(SIMULATED_S * workers / SIMULATED_MINI_BATCH_S)
    cpu_s = time.process_time()
    seconds = _made_up(make, count, folder, workers=workers, mini_batch_size=1).seconds
    cpu_s = time.process_time() - cpu_s - pools[0].cpu_s
    return {
        "workers": workers, "leases_per_s": pools[0].leases / seconds,
        "load": cpu_s / seconds, "busy": SIMULATED_S / seconds,
    }


def _call(count: int, folder: Path) -> dict[str, Any]:
    """Measure what a lease's actor call costs this process, two at a time in each of two actors."""
    import ray

    class Actor:
        def lease(self, lease: dict[str, Any]) -> dict[str, Any]:
            return {**lease, "done": [lease] * 2}

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    actor = ray.remote(Actor).options(num_cpus=1, max_concurrency=4)
    actors: list[Any] = [actor.remote() for _ in range(2)]
    lease = {"id": 1, "range": [1, 2], "attempt": 1, "budget_s": 0.4}
    ray.get([one.lease.remote(lease) for one in actors])
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def call(number: int) -> None:
        reference = actors[number % 2].lease.remote(lease)
        reference.future().add_done_callback(lambda future: done.put(future.result()))

    cpu_s = time.process_time()
    for number in range(4):
        call(number)
    for number in range(count):
        done.get()
        call(number)
    cpu_s = time.process_time() - cpu_s
    ray.shutdown()
    return {"call_ms": cpu_s / count * 1e3}


if __name__ == "__main__":
    figure = {"cpu": _cpu, "memory": _memory, "load": _load, "call": _call}[sys.argv[1]]
    print(json.dumps(figure(int(sys.argv[2]), Path(sys.argv[3]))))
