from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest

from inferay.engine.batch.dispatch import Counts, Dispatcher
from inferay.engine.batch.messages import Done, Failure, Lease, Receipt, WorkerSeen
from inferay.engine.batch.progress import NAME, WINDOW_S, ProgressWriter
from inferay.engine.batch.slots import Slots
from inferay.engine.batch.store import MemoryStore
from inferay.engine.batch.telemetry import (
    LOOK_S,
    SLOWEST_SHOWN,
    WORKERS_SHOWN_MAX,
    Telemetry,
)
from inferay.engine.batch.units import Range

_ids = itertools.count(1)


class Crew:
    """Workers of a job, and what is told of them."""

    def __init__(self, count: int) -> None:
        self.slots = Slots(count)
        self.telemetry = Telemetry(self.slots)
        while started := self.slots.to_start(10**9):
            for slot in started:
                self.telemetry.started(slot)

    def up(self, *slots: int) -> Crew:
        for slot in slots or self.slots.workers:
            self.telemetry.placed(slot, f"node{slot}")
            self.slots.place(slot)
            self.slots.ready(slot)
        return self

    def lease(self, slot: int, first: int, stop: int, now_s: float = 0.0) -> Lease:
        lease = Lease(next(_ids), Range(first, stop), 1, 1.0)
        self.slots.take(slot, lease)
        self.telemetry.leased(slot, now_s)
        return lease

    def answer(
        self, slot: int, lease: Lease, *, now_s: float = 0.0, run_s: float = 1.0,
        wall_s: float = 1.5, slowest: tuple[int, float] | None = None, rest: Range | None = None,
        fetch_s: float = 0.0,
    ) -> None:
        receipt = Receipt(lease.id, (), (), rest, run_s, wall_s, slowest, fetch_s)
        self.telemetry.answered(slot, receipt, now_s)
        self.slots.give_back(slot, lease.id)

    def facts(self, now_s: float = 0.0) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(json.dumps(self.telemetry.facts(now_s)))
        return facts

    def worker(self, slot: int, now_s: float = 0.0) -> dict[str, Any]:
        found: dict[str, Any] = next(
            one for one in self.facts(now_s)["workers"] if one["slot"] == slot
        )
        return found


def test_a_worker_is_told_with_its_node_and_what_it_has_in_hand() -> None:
    crew = Crew(2).up(0)
    crew.lease(0, 40, 72, now_s=10.0)
    assert crew.worker(0, now_s=12.0) == {
        "slot": 0, "node": "node0", "state": "scoring", "lease": [40, 72], "lease_seconds": 2.0,
        "in_hand": None, "in_hand_seconds": None, "mini_batches_done": 0, "restarts": 0,
        "memory_bytes": None,
    }
    crew.telemetry.seen(WorkerSeen(0, 43, 1.5, 1 << 20), 12.0)
    seen = crew.worker(0, now_s=13.0)
    assert (seen["in_hand"], seen["in_hand_seconds"], seen["memory_bytes"]) == (43, 2.5, 1 << 20)
    assert crew.worker(1)["state"] == "waiting"


def test_what_was_in_hand_is_forgotten_with_its_lease() -> None:
    crew = Crew(1).up()
    lease = crew.lease(0, 0, 8)
    crew.telemetry.seen(WorkerSeen(0, 3, 1.0, 1), 0.0)
    crew.answer(0, lease, rest=Range(5, 8), now_s=4.0)
    assert crew.worker(0)["in_hand"] is None
    assert crew.worker(0)["mini_batches_done"] == 5
    crew.telemetry.seen(WorkerSeen(0, 3, 9.0, 1), 0.0)   # a look that was under way
    assert crew.worker(0)["in_hand"] is None


def test_the_clock_of_the_second_lease_begins_when_the_first_is_answered() -> None:
    crew = Crew(1).up()
    first = crew.lease(0, 0, 1, now_s=10.0)
    crew.lease(0, 1, 2, now_s=11.0)
    crew.answer(0, first, now_s=15.0)
    assert crew.worker(0, now_s=16.0)["lease_seconds"] == 1.0


def test_the_slowest_mini_batches_are_told_once_each() -> None:
    crew = Crew(1).up()
    for index, seconds in [(1, 0.5), (2, 3.0), (3, 1.0), (2, 2.0), (4, 0.1), (5, 4.0), (6, 0.2),
                           (3, 9.0)]:
        crew.answer(0, crew.lease(0, index, index + 1), slowest=(index, seconds))
    slowest = crew.facts()["slowest"]
    assert [(one["mini_batch"], one["seconds"]) for one in slowest] == [
        (3, 9.0), (5, 4.0), (2, 3.0), (1, 0.5), (6, 0.2),
    ]
    assert len(slowest) == SLOWEST_SHOWN
    assert slowest[0]["node"] == "node0"


def test_the_time_of_workers_is_summed_by_what_they_did() -> None:
    crew = Crew(3)
    crew.telemetry.advance(0.0)
    crew.telemetry.advance(10.0)   # three wait for a place
    crew.slots.place(0)
    crew.telemetry.advance(12.0)   # one loads, two wait
    crew.up(0)
    crew.telemetry.advance(15.0)   # one is idle, two wait
    crew.answer(0, crew.lease(0, 0, 1), run_s=4.0, wall_s=6.5, fetch_s=2.0)
    assert crew.facts()["worker_seconds"] == {
        "scoring": 4.0, "fetching": 2.0, "overhead": 0.5, "idle": 3.0, "starting": 2.0,
        "waiting": 30.0 + 4.0 + 6.0,
    }


def test_deaths_are_counted_by_kind_and_restarts_by_worker() -> None:
    crew = Crew(2).up()
    for kind in ("Timeout", "Crashed", "Timeout"):
        crew.telemetry.died(0, Failure(kind, "x"))
        crew.slots.fall(0, has_place=True)
        crew.telemetry.started(0)
        crew.slots.to_start(2)
        crew.slots.ready(0)
    assert crew.facts()["deaths_by_kind"] == [
        {"kind": "Timeout", "count": 2}, {"kind": "Crashed", "count": 1},
    ]
    assert crew.worker(0)["restarts"] == 3
    assert crew.worker(1)["restarts"] == 0


def test_of_many_workers_those_longest_at_their_lease_are_told_one_by_one() -> None:
    crew = Crew(1000).up()
    for slot in range(1000):
        crew.lease(slot, slot, slot + 1, now_s=float(1000 - slot))
    facts = crew.facts(now_s=2000.0)
    shown = [one["slot"] for one in facts["workers"]]
    assert shown == list(range(1000 - WORKERS_SHOWN_MAX, 1000))
    assert facts["workers_by_state"]["scoring"] == 1000
    assert len(json.dumps(facts)) < 10_000


def test_workers_are_looked_at_seldom_and_never_twice_at_a_time() -> None:
    crew = Crew(3).up(0, 1)
    look = crew.telemetry.to_look_at
    assert look(100.0) == [0, 1]   # the third is not up
    assert look(100.0 + LOOK_S / 2) == []
    crew.telemetry.seen(WorkerSeen(1, None, 0.0, 1), 101.0)
    assert look(100.0 + LOOK_S) == [1]   # the first has not answered


def test_a_thousand_workers_cost_the_driver_little() -> None:
    """Facts every half second: at most a hundredth of the driver's time."""
    crew = Crew(1000).up()
    for slot in range(1000):
        crew.lease(slot, slot, slot + 1)
    began_s = time.process_time()
    for _ in range(10):
        json.dumps(crew.telemetry.facts(1.0))
    assert (time.process_time() - began_s) / 10 < 0.01 * 0.5


# -- the rates of the job


def progress_at(
    monkeypatch: pytest.MonkeyPatch, moments: list[tuple[float, int]], *, mini_batches: int = 1000
) -> dict[str, Any]:
    """Return the progress of a job that had so many mini-batches of one item done when."""
    store = MemoryStore()
    now_s = 0.0
    monkeypatch.setattr("inferay.engine.batch.progress.time.monotonic", lambda: now_s)
    writer = ProgressWriter(store, 1)
    dispatcher = Dispatcher(
        mini_batches=mini_batches, workers=2, max_retries=0, error_threshold=-1,
        items_of=lambda index: 1,
    )
    for moment_s, done in moments:
        now_s = moment_s
        dispatcher.counts = Counts(mini_batches_done=done, items_ok=done)
        writer.begin(dispatcher.counts)
        writer.write("Running", dispatcher)
    found: dict[str, Any] = json.loads(store.read(NAME))
    return found


def test_the_rate_now_is_that_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [(100.0, 0), (150.0, 50), (150.0 + WINDOW_S, 50 + int(WINDOW_S) * 20)]
    found = progress_at(monkeypatch, moments)
    assert found["items_per_s_now"] == pytest.approx(20.0)
    assert found["items_per_s"] == pytest.approx(250 / 60)
    assert found["percent"] == 25.0
    assert found["seconds_left"] == pytest.approx(750 / 20)


def test_seconds_left_follow_all_the_time_when_nothing_was_done_lately(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = progress_at(monkeypatch, [(100.0, 0), (150.0, 100), (180.0, 100), (200.0, 100)])
    assert found["items_per_s_now"] == 0.0
    assert found["seconds_left"] == pytest.approx(900.0)


def test_what_an_earlier_epoch_did_does_not_count_for_the_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = progress_at(monkeypatch, [(100.0, 500), (110.0, 510)])
    assert found["items_per_s"] == pytest.approx(1.0)
    assert found["percent"] == 51.0


def test_the_receipt_names_the_slowest_mini_batch() -> None:
    done = (Done(Range(0, 2), "segments/x", 0, 1, 2, 2),)
    receipt = Receipt(1, done, (), None, 1.0, 1.0, (1, 0.75))
    assert Receipt.from_json(json.loads(json.dumps(receipt.to_json()))) == receipt
