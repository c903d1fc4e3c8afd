from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from inferay.engine.batch.dispatch import (
    KILLS_MAX,
    PASSES_PER_WORKER,
    STARTS_BEFORE_READY_MAX,
    STARTS_MAX,
    Dispatcher,
)
from inferay.engine.batch.journal import Record
from inferay.engine.batch.lease_sizes import (
    LEASE_GROWTH_MAX,
    LEASE_MINI_BATCHES_FIRST,
    LEASE_MINI_BATCHES_MAX,
    LEASE_S_MIN,
    LEASE_S_TAIL,
    LeaseSizes,
)
from inferay.engine.batch.messages import Done, Failed, Failure, Lease, Receipt
from inferay.engine.batch.sameness import PROBES, PROBES_AFTER_DEATH, cause_of
from inferay.engine.batch.slots import LEASES_PER_WORKER
from inferay.engine.batch.units import Range
from inferay.errors import InferayError, JobError, UserCodeError

BAD = Failure("Exception", "ValueError: bad", "score.py line 3")
CRASH = Failure("Crashed", "run() crashed with SIGSEGV")
KILLED = Failure("Killed", "killed from outside", is_own=False)
NO_START = Failure("InitFailed", "init() of score.py failed: ValueError: x", "the traceback")
NO_NODE = Failure("Lost", "the node is gone", is_own=False)

Item = tuple[int, int]


def validate(dispatcher: Dispatcher) -> None:
    """Check that each item is in one place: done, leased, waiting to be leased, or retrying."""
    places: Counter[Item] = Counter()
    items_of = dispatcher._items_of

    def add(one: Range) -> None:
        for index in range(one.first, one.stop):
            places.update((index, i) for i in range(*(one.items or (0, items_of(index)))))

    done_items = 0
    for index, parts in dispatcher._parts.items():
        assert not dispatcher._done[index]
        for part in parts:
            add(Range(index, index + 1, part))
            done_items += part[1] - part[0]
    for index in range(dispatcher.mini_batches):
        if dispatcher._done[index]:
            add(Range(index, index + 1))
            done_items += items_of(index)
    for waiting in dispatcher._backlog._untried:
        add(waiting)
    for retry, _ in dispatcher._backlog.retries:
        add(retry)
    leased = [lease for worker in dispatcher.workers.values() for lease in worker.leases]
    passed = dispatcher.slots._passed
    assert set(passed) <= {lease.id for lease in leased}
    sizes = sum(one.range.stop - one.range.first for one in leased)
    assert dispatcher.slots.leased == sizes - sum(passed.values())
    for worker in dispatcher.workers.values():
        assert len(worker.leases) <= LEASES_PER_WORKER
        assert worker.state == "ready" or not worker.leases
        for lease in worker.leases:
            add(lease.range)
    every = {(i, j) for i in range(dispatcher.mini_batches) for j in range(items_of(i))}
    assert set(places) == every
    assert set(places.values()) <= {1}
    counts = dispatcher.counts
    assert counts.items_ok + counts.items_failed == done_items
    assert counts.mini_batches_done == sum(dispatcher._done)
    assert dispatcher._backlog.size == sum(r.stop - r.first for r in dispatcher._backlog._untried)


def commits(records: list[Record]) -> list[Record]:
    return [record for record in records if record["k"] == "commit"]


def failed_items(records: list[Record]) -> list[Item]:
    return sorted(
        (failure["mb"], item)
        for record in commits(records)
        for failure in record["failures"] for item in range(*failure["items"])
    )


class Bench:
    """A dispatcher and workers that score by a set of bad items, without processes."""

    def __init__(
        self, items: list[int], *, bad: set[Item] = frozenset(), workers: int = 2,   # type: ignore[assignment]
        max_retries: int = 1, error_threshold: int = -1,
    ) -> None:
        self.items, self.bad = items, bad
        self.dispatcher = Dispatcher(
            mini_batches=len(items), workers=workers, max_retries=max_retries,
            error_threshold=error_threshold, items_of=items.__getitem__,
        )
        self.records: list[Record] = []
        self.given: list[Lease] = []
        self.begun: Counter[Range] = Counter()
        self.has_standby = True

    def begin(self, *, ready: bool = True) -> Bench:
        self.dispatcher.begin()
        if ready:
            self.all_ready()
        return self

    def all_ready(self) -> None:
        for slot in self.dispatcher.slots_to_start():
            self.dispatcher.on_ready(slot, has_standby=self.has_standby)

    def lease(self, slot: int = 0) -> Lease | None:
        lease = self.dispatcher.next_lease(slot)
        if lease:
            self.given.append(lease)
        return lease

    def is_bad(self, one: Range) -> bool:
        items = range(*(one.items or (0, self.items[one.first])))
        return any((one.first, item) in self.bad for item in items)

    def receipt_of(self, lease: Lease, scored: int | None = None, cost_s: float = 0.01) -> Receipt:
        """Score the first so many mini-batches of the lease."""
        stop = lease.range.stop if scored is None else min(
            lease.range.stop, lease.range.first + scored
        )
        done: list[Done] = []
        failed: list[Failed] = []
        for index in range(lease.range.first, stop):
            one = Range(index, index + 1, lease.range.items)
            items = one.items[1] - one.items[0] if one.items else self.items[index]
            self.begun[one] += 1
            if self.is_bad(one):
                failed.append(Failed(one, items, BAD))
            else:
                done.append(Done(one, "segments/x", 0, items, items, items))
        rest = Range(stop, lease.range.stop) if stop < lease.range.stop else None
        wall_s = cost_s * (stop - lease.range.first)
        return Receipt(lease.id, tuple(done), tuple(failed), rest, wall_s, wall_s)

    def answer(
        self, slot: int, lease: Lease, scored: int | None = None, cost_s: float = 0.01
    ) -> list[Record]:
        made = self.dispatcher.on_receipt(slot, self.receipt_of(lease, scored, cost_s))
        self.records += made
        return made

    def die(self, slot: int, failure: Failure, in_hand: int | None) -> list[Record]:
        made = self.dispatcher.on_death(slot, failure, in_hand)
        self.records += made
        return made

    def finish(self) -> Bench:
        """Score all that is left; fails if it does not end."""
        dispatcher = self.dispatcher
        for _ in range(100 * sum(self.items) + 100):
            if dispatcher.is_over:
                break
            self.all_ready()
            for slot, worker in dispatcher.workers.items():
                while self.lease(slot):
                    pass
                if worker.leases:
                    self.answer(slot, worker.leases[0])
            validate(dispatcher)
        assert dispatcher.is_over
        return self


class DispatchMachine(RuleBasedStateMachine):
    """Anything that workers may do, in any order."""

    @initialize(
        items=st.lists(st.integers(1, 6), min_size=1, max_size=25), workers=st.integers(1, 4),
        max_retries=st.integers(0, 2), data=st.data(),
    )
    def begin(self, items: list[int], workers: int, max_retries: int, data: st.DataObject) -> None:
        every = [(i, j) for i, count in enumerate(items) for j in range(count)]
        bad = data.draw(st.sets(st.sampled_from(every), max_size=6))
        self.max_retries = max_retries
        self.bench = Bench(items, bad=bad, workers=workers, max_retries=max_retries)
        self.bench.begin(ready=False)
        self.dispatcher = self.bench.dispatcher
        self.starting: set[int] = set()
        self.now_s = 0.0
        self.late: list[tuple[int, Lease]] = []
        self.kills = 0
        self.start_failures: Counter[int] = Counter()

    def slots(self, *, with_leases: bool) -> list[int]:
        return [
            slot for slot, worker in self.dispatcher.workers.items()
            if worker.state == "ready" and bool(worker.leases) >= with_leases
        ]

    @rule()
    def start(self) -> None:
        self.starting |= set(self.dispatcher.slots_to_start())

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def become_ready(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.remove(slot)
        self.start_failures[slot] = 0
        self.dispatcher.on_ready(slot)

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def fail_to_start(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.starting)))
        total = sum(self.start_failures.values())
        if total < STARTS_BEFORE_READY_MAX - 1 and self.start_failures[slot] < STARTS_MAX - 1:
            self.starting.remove(slot)
            self.start_failures[slot] += 1
            self.dispatcher.on_start_failed(slot, NO_NODE)

    @precondition(lambda self: self.slots(with_leases=False))
    @rule(data=st.data())
    def lease(self, data: st.DataObject) -> None:
        lease = self.bench.lease(data.draw(st.sampled_from(self.slots(with_leases=False))))
        if lease and not lease.range.is_part:
            assert lease.attempt <= self.max_retries + 1
            assert lease.attempt == 1 or lease.range.stop - lease.range.first == 1

    @precondition(lambda self: self.slots(with_leases=True))
    @rule(data=st.data(), scored=st.none() | st.integers(1, 5))
    def answer(self, data: st.DataObject, scored: int | None) -> None:
        slot = data.draw(st.sampled_from(self.slots(with_leases=True)))
        self.bench.answer(slot, self.dispatcher.workers[slot].leases[0], scored)

    @precondition(lambda self: self.slots(with_leases=True))
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """Die of the code's own doing: only at a mini-batch with a bad item in it."""
        slot = data.draw(st.sampled_from(self.slots(with_leases=True)))
        lease = self.dispatcher.workers[slot].leases[0]
        suspects = [
            index for index in range(lease.range.first, lease.range.stop)
            if self.bench.is_bad(Range(index, index + 1, lease.range.items))
        ]
        if suspects:
            self.died(slot, CRASH, data.draw(st.sampled_from(suspects)))

    @precondition(lambda self: self.kills < KILLS_MAX and self.slots(with_leases=False))
    @rule(data=st.data(), failure=st.sampled_from([KILLED, NO_NODE, CRASH]))
    def be_killed(self, data: st.DataObject, failure: Failure) -> None:
        slot = data.draw(st.sampled_from(self.slots(with_leases=False)))
        leases = self.dispatcher.workers[slot].leases
        held = [i for lease in leases[:1] for i in range(lease.range.first, lease.range.stop)]
        # A crash with nothing known in hand blames nobody; a stale hand is as good as none.
        known = [] if failure.is_own else held
        in_hand = data.draw(st.sampled_from([None, 10**6, *known]))
        self.kills += 1
        self.died(slot, failure, in_hand)

    def died(self, slot: int, failure: Failure, in_hand: int | None) -> None:
        self.late += [(slot, lease) for lease in self.dispatcher.workers[slot].leases]
        self.bench.die(slot, failure, in_hand)

    @precondition(lambda self: self.slots(with_leases=True))
    @rule(data=st.data(), in_hand=st.none() | st.integers(0, 25))
    def be_seen(self, data: st.DataObject, in_hand: int | None) -> None:
        self.dispatcher.on_seen(data.draw(st.sampled_from(self.slots(with_leases=True))), in_hand)

    @rule(passed_s=st.sampled_from([0.1, 10.0]))
    def give_back(self, passed_s: float) -> None:
        self.now_s += passed_s
        for slot in self.dispatcher.slots_to_release(self.now_s):
            assert self.dispatcher.workers[slot].leases == []
            self.starting.discard(slot)

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def answer_too_late(self, data: st.DataObject) -> None:
        slot, lease = data.draw(st.sampled_from(self.late))
        before = self.dispatcher.counts.items_ok
        assert self.bench.answer(slot, lease) == []
        assert self.dispatcher.counts.items_ok == before

    @invariant()
    def each_item_is_in_one_place(self) -> None:
        validate(self.dispatcher)

    @invariant()
    def only_bad_items_fail(self) -> None:
        assert set(failed_items(self.bench.records)) <= self.bench.bad

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        for slot in sorted(self.starting):
            self.dispatcher.on_ready(slot)
        cut = len(self.bench.records)
        self.bench.finish()
        assert self.dispatcher.failure is None
        assert failed_items(self.bench.records) == sorted(self.bench.bad)
        self.check_resume(cut)

    def check_resume(self, cut: int) -> None:
        """An epoch that begins with these records ends the same."""
        again = Bench(self.bench.items, bad=self.bench.bad, max_retries=self.max_retries)
        for record in self.bench.records[:cut]:
            again.dispatcher.replay(json.loads(json.dumps(record)))
        again.records += self.bench.records[:cut]
        again.begin()
        validate(again.dispatcher)
        again.finish()
        ours, theirs = again.dispatcher.counts, self.dispatcher.counts
        assert (ours.items_ok, ours.items_failed, ours.rows, ours.mini_batches_done) == (
            theirs.items_ok, theirs.items_failed, theirs.rows, theirs.mini_batches_done
        )
        assert failed_items(again.records) == sorted(self.bench.bad)


TestDispatchMachine = DispatchMachine.TestCase
TestDispatchMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


# -- poison


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.data(), st.integers(0, 3))
def test_bisection_finds_exactly_the_bad_items(
    items: int, data: st.DataObject, max_retries: int
) -> None:
    bad = data.draw(st.sets(st.tuples(st.just(0), st.integers(0, items - 1))))
    bench = Bench([items, 1], bad=bad, workers=1, max_retries=max_retries).begin().finish()
    assert failed_items(bench.records) == sorted(bad)
    assert bench.dispatcher.counts.items_ok == items + 1 - len(bad)


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_a_mini_batch_gets_its_attempts_and_each_part_one(max_retries: int) -> None:
    bench = Bench([8], bad={(0, 5)}, workers=1, max_retries=max_retries).begin().finish()
    assert bench.begun.pop(Range(0, 1)) == max_retries + 1
    assert set(bench.begun.values()) == {1}
    assert bench.dispatcher.counts.retries == max_retries + 6   # 2 halves, 2 quarters, 2 items
    attempts = [lease.attempt for lease in bench.given if not lease.range.is_part]
    assert attempts == list(range(1, max_retries + 2))


def test_a_mini_batch_of_one_item_is_the_poison_itself() -> None:
    bench = Bench([1, 1], bad={(0, 0)}, workers=1, max_retries=2).begin().finish()
    (record,) = [record for record in commits(bench.records) if record["failures"]]
    assert record["r"] == [0, 1]
    assert record["failures"] == [{
        "mb": 0, "items": [0, 1], "n": 1, "attempts": 3, "kind": "Exception",
        "exception": "ValueError: bad", "traceback": "score.py line 3",
    }]


def test_a_failure_that_goes_away_is_no_failure() -> None:
    bench = Bench([2], bad={(0, 1)}, workers=1, max_retries=1).begin()
    first = bench.lease()
    assert first is not None
    bench.answer(0, first)
    bench.bad = set()
    bench.finish()
    counts = bench.dispatcher.counts
    assert (counts.items_ok, counts.items_failed, counts.retries) == (2, 0, 1)


def test_too_few_rows_are_counted_and_not_retried() -> None:
    bench = Bench([4], workers=1).begin()
    lease = bench.lease()
    assert lease is not None
    done = Done(Range(0, 1), "segments/x", 0, 9, 3, 4, missing=((0, 4, 1),))
    (record,) = bench.dispatcher.on_receipt(0, Receipt(lease.id, (done,), (), None, 0.1, 0.1))
    assert bench.dispatcher.is_over
    assert (record["ok"], record["rows"]) == (3, 3)
    (failure,) = record["failures"]
    assert (failure["kind"], failure["n"], failure["items"]) == ("RowsMissing", 1, [0, 4])
    assert failure["exception"] == "run() returned 3 rows for 4 items"


# -- deaths


def lease_of(bench: Bench, slot: int = 0) -> Lease:
    lease = bench.lease(slot)
    assert lease is not None
    return lease


def grown(items: list[int], **facts: Any) -> tuple[Bench, Lease]:
    """Return a bench whose worker 0 has scored some and holds a lease of several mini-batches."""
    bench = Bench(items, **facts).begin()
    bench.answer(0, lease_of(bench), cost_s=1e-6)
    lease = lease_of(bench)
    while lease.range.stop - lease.range.first < 4:
        bench.answer(0, lease, cost_s=1e-6)
        lease = lease_of(bench)
    return bench, lease


def test_a_crash_blames_only_the_mini_batch_in_hand() -> None:
    bench, lease = grown([2] * 200, workers=1, max_retries=3)
    blamed = lease.range.first + 2
    bench.die(0, CRASH, blamed)
    validate(bench.dispatcher)
    assert list(bench.dispatcher._backlog.retries) == [(Range(blamed, blamed + 1), 2)]
    bench.all_ready()
    again = [lease_of(bench), lease_of(bench)]
    assert [(one.range.first, one.attempt) for one in again] == [
        (blamed, 2), (lease.range.first, 1)
    ]


def test_what_ended_a_process_waits_a_while_for_a_worker_with_a_standby() -> None:
    bench, lease = grown([2] * 2_000, workers=2, max_retries=3)
    blamed = lease.range.first + 2
    bench.has_standby = False
    bench.die(0, CRASH, blamed)
    bench.all_ready()
    passed = 0
    while (given := lease_of(bench)).range.first != blamed:
        passed += 1
        bench.answer(0, given, cost_s=0.1)
        validate(bench.dispatcher)
    assert passed == 2 * PASSES_PER_WORKER
    bench.die(0, CRASH, blamed)
    bench.has_standby = True
    bench.all_ready()
    assert lease_of(bench).range.first == blamed


def test_what_ended_a_process_is_tried_at_once_where_nothing_else_is_left() -> None:
    bench = Bench([2, 2], workers=1, max_retries=1).begin()
    bench.has_standby = False
    bench.die(0, CRASH, lease_of(bench).range.first)
    bench.all_ready()
    bench.answer(0, lease_of(bench))
    assert lease_of(bench).attempt == 2


@pytest.mark.parametrize("kind", ["StorageFull", "ManifestDamaged"])
def test_what_another_worker_would_meet_too_fails_the_job_and_no_item(kind: str) -> None:
    bench, _ = grown([2] * 200, workers=2)
    assert bench.die(0, Failure(kind, "no space is left", is_own=False), None) == []
    validate(bench.dispatcher)
    assert isinstance(bench.dispatcher.failure, JobError)
    assert bench.dispatcher.failure.code == kind
    assert bench.dispatcher.counts.items_failed == 0


def test_a_kill_from_outside_is_no_attempt_up_to_a_limit() -> None:
    bench = Bench([4], workers=1, max_retries=0).begin()
    for _ in range(KILLS_MAX):
        assert lease_of(bench).attempt == 1
        bench.die(0, KILLED, 0)
        bench.all_ready()
    assert not bench.dispatcher._backlog.retries
    bench.begun.clear()
    lease_of(bench)
    bench.die(0, KILLED, 0)   # one too many: now it counts, and the mini-batch is bisected
    bench.all_ready()
    assert lease_of(bench).range == Range(0, 1, (0, 2))


def test_a_mini_batch_that_is_killed_for_ever_ends() -> None:
    bench = Bench([3, 1], workers=1, max_retries=1).begin()
    deaths = 0
    while not bench.dispatcher.is_over and deaths < 1000:
        lease = lease_of(bench)
        if lease.range.first == 0:
            bench.die(0, KILLED, 0)
            deaths += 1
        else:
            bench.answer(0, lease)
        validate(bench.dispatcher)
        bench.all_ready()
    assert bench.dispatcher.counts.items_failed == 3
    assert bench.dispatcher.counts.deaths == deaths


def test_a_death_without_leases_costs_nothing() -> None:
    bench = Bench([1, 1], workers=1).begin()
    assert bench.die(0, CRASH, None) == []
    validate(bench.dispatcher)
    assert bench.finish().dispatcher.counts.items_ok == 2


def test_parts_of_one_mini_batch_are_not_held_by_one_worker() -> None:
    """Or its hand, which names the mini-batch, would not tell which part to blame."""
    bench = Bench([2] + [1] * 50, bad={(0, 0), (0, 1)}, workers=1, max_retries=0).begin()
    bench.answer(0, lease_of(bench))
    assert lease_of(bench).range == Range(0, 1, (0, 1))
    second = bench.lease()
    assert second is None or second.range.first != 0
    bench.finish()
    assert failed_items(bench.records) == [(0, 0), (0, 1)]


# -- lease sizes


def test_a_lease_grows_by_a_factor_at_most_and_has_a_ceiling() -> None:
    bench = Bench([1] * 200_000, workers=1).begin()
    sizes = []
    for _ in range(12):
        lease = lease_of(bench)
        sizes.append(lease.range.stop - lease.range.first)
        bench.answer(0, lease, cost_s=1e-9)
    assert sizes[0] <= LEASE_MINI_BATCHES_FIRST
    assert all(b <= a * LEASE_GROWTH_MAX for a, b in itertools.pairwise(sizes))
    assert max(sizes) == LEASE_MINI_BATCHES_MAX


def test_a_lease_holds_about_the_intended_work() -> None:
    bench = Bench([1] * 10_000, workers=4).begin()
    for _ in range(6):
        lease = lease_of(bench)
        bench.answer(0, lease, cost_s=0.01)
    assert lease.range.stop - lease.range.first == int(LEASE_S_MIN / 0.01)
    assert lease.budget_s == pytest.approx(2 * LEASE_S_MIN)


def test_leases_shrink_to_one_towards_the_end() -> None:
    bench = Bench([1] * 1000, workers=2).begin()
    sizes = []
    while lease := bench.lease(0):
        sizes.append(lease.range.stop - lease.range.first)
        left = bench.dispatcher._backlog.size
        assert sizes[-1] <= max(1, (left + sizes[-1]) // 4)
        bench.answer(0, lease, cost_s=2 * LEASE_S_TAIL)
    assert sizes[-1] == 1
    assert sum(sizes) == 1000


def test_a_lease_of_tiny_mini_batches_stays_worth_its_receipt() -> None:
    bench = Bench([1] * 1000, workers=2).begin()
    sizes = []
    while lease := bench.lease(0):
        sizes.append(lease.range.stop - lease.range.first)
        bench.answer(0, lease, cost_s=LEASE_S_TAIL / 50)
    assert min(sizes[3:-1]) == 50
    assert sum(sizes) == 1000


def test_a_worker_holds_several_leases_and_one_near_the_end() -> None:
    bench = Bench([1] * 100, workers=2).begin()
    for _ in range(LEASES_PER_WORKER):
        assert bench.lease() is not None
    assert bench.lease() is None
    for lease in list(bench.dispatcher.workers[0].leases):
        bench.answer(0, lease, cost_s=10.0)
    while bench.dispatcher._backlog.size >= 2 * 2 * LEASES_PER_WORKER:
        bench.answer(0, lease_of(bench), cost_s=10.0)
    assert bench.lease() is not None
    assert bench.lease() is None


def test_leases_are_longer_where_files_are_fetched_ahead() -> None:
    sizes = [LeaseSizes(2, is_fetching=fetching) for fetching in (False, True)]
    for one in sizes:
        one.measure(Bench([1] * 10).begin().receipt_of(Lease(1, Range(0, 10), 1, 1.0)))
    assert [one.next(10_000, 1_000) for one in sizes] == [20, 100]


def test_what_a_worker_gave_back_goes_to_the_next_one() -> None:
    bench, lease = grown([1] * 200, workers=2)
    bench.answer(0, lease, scored=1)
    assert lease_of(bench, 1).range.first == lease.range.first + 1


def test_no_lease_goes_to_a_worker_that_is_not_ready() -> None:
    bench = Bench([1] * 5, workers=2).begin(ready=False)
    assert bench.lease() is None
    assert bench.dispatcher.slots_to_start() == [0, 1]
    assert bench.dispatcher.slots_to_start() == []
    bench.dispatcher.on_ready(1)
    assert bench.lease(0) is None
    assert bench.lease(1) is not None


def test_there_are_no_more_workers_than_mini_batches() -> None:
    assert len(Bench([1, 1], workers=50).dispatcher.workers) == 2


# -- the threshold


@pytest.mark.parametrize(("threshold", "fails"), [(0, True), (2, True), (3, False), (-1, False)])
def test_the_threshold_counts_failed_items_over_the_whole_input(
    threshold: int, fails: bool
) -> None:
    bad = {(1, 0), (3, 1), (3, 2)}
    bench = Bench([3] * 5, bad=bad, workers=1, max_retries=0, error_threshold=threshold).begin()
    bench.finish()
    assert (bench.dispatcher.failure is not None) == fails
    if fails:
        error = bench.dispatcher.failure
        assert isinstance(error, JobError)
        assert error.code == "ErrorThresholdExceeded"
        assert f"{threshold + 1} items have failed" in error.message
        assert bench.dispatcher.next_lease(0) is None
        assert bench.dispatcher.slots_to_start() == []


def test_the_lowest_failed_items_traceback_is_told() -> None:
    bench = Bench([1] * 3, workers=3, max_retries=0, error_threshold=1).begin()
    leases = {slot: lease_of(bench, slot) for slot in (0, 1, 2)}
    for slot in (2, 0):
        number = leases[slot].range.first
        failure = Failure("Exception", f"E: {number}", f"traceback {number}")
        failed = Failed(leases[slot].range, 1, failure)
        bench.dispatcher.on_receipt(
            slot, Receipt(leases[slot].id, (), (failed,), None, 0.1, 0.1)
        )
    lowest = leases[0].range.first
    assert bench.dispatcher.first_failure is not None
    assert bench.dispatcher.first_failure["mb"] == lowest
    error = bench.dispatcher.failure
    assert isinstance(error, InferayError)
    assert error.message.endswith(f"the first: E: {lowest}")
    assert error.details == f"traceback {lowest}"


def test_failed_items_of_earlier_epochs_count_too() -> None:
    first = Bench([1] * 4, bad={(0, 0), (1, 0)}, max_retries=0).begin().finish()
    second = Bench([1] * 4, max_retries=0, error_threshold=1)
    for record in first.records:
        second.dispatcher.replay(record)
    second.begin(ready=False)
    assert isinstance(second.dispatcher.failure, JobError)


def test_a_job_without_success_names_the_first_failure() -> None:
    bench = Bench([2], bad={(0, 0), (0, 1)}, max_retries=0).begin().finish()
    assert bench.dispatcher.failure is None
    error = bench.dispatcher.nothing_succeeded_error()
    assert error.code == "NoItemSucceeded"
    assert error.message == "none of 2 items succeeded; the first: ValueError: bad"


# -- resume


def test_a_record_that_comes_twice_counts_once() -> None:
    bench = Bench([2, 2], workers=1).begin().finish()
    again = Bench([2, 2])
    for record in [*bench.records, *bench.records]:
        again.dispatcher.replay(record)
    again.dispatcher.begin()
    assert again.dispatcher.counts.items_ok == 4
    assert again.dispatcher.is_over


def test_a_resumed_mini_batch_scores_only_the_parts_that_are_missing() -> None:
    bench = Bench([8, 1], bad={(0, 7)}, workers=1, max_retries=0).begin().finish()
    parts = [record for record in commits(bench.records) if len(record["r"]) == 4]
    again = Bench([8, 1], bad={(0, 7)}, workers=1, max_retries=0)
    again.dispatcher.replay(parts[0])   # items 0 to 4
    again.begin().finish()
    assert Range(0, 1) not in again.begun
    assert all(one.items is None or one.items[0] >= 4 for one in again.begun)
    assert failed_items(again.records) == [(0, 7)]


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 20), st.data(), st.integers(0, 2))
def test_attempts_are_the_same_however_often_a_job_is_resumed(
    items: int, data: st.DataObject, max_retries: int
) -> None:
    bad = data.draw(st.sets(st.tuples(st.just(0), st.integers(0, items - 1)), min_size=1))
    facts: dict[str, Any] = {"bad": bad, "workers": 1, "max_retries": max_retries}
    bench = Bench([items, 1], **facts).begin().finish()
    cut = data.draw(st.integers(0, len(bench.records)))
    again = Bench([items, 1], **facts)
    for record in bench.records[:cut]:
        again.dispatcher.replay(json.loads(json.dumps(record)))
    again.records += bench.records[:cut]
    again.begin().finish()
    assert attempts(again.records) == attempts(bench.records)


def attempts(records: list[Record]) -> dict[Item, int]:
    return {
        (failure["mb"], failure["items"][0]): failure["attempts"]
        for record in commits(records) for failure in record["failures"]
    }


def test_a_mini_batch_that_failed_before_is_not_given_all_its_attempts_again() -> None:
    bench = Bench([4, 1], bad={(0, 0)}, workers=1, max_retries=3).begin()
    for _ in range(2):
        bench.answer(0, lease_of(bench))
    again = Bench([4, 1], bad={(0, 0)}, workers=1, max_retries=3)
    for record in bench.records:
        again.dispatcher.replay(record)
    again.begin().finish()
    whole = [lease.attempt for lease in again.given if lease.range == Range(0, 1)]
    assert whole == [3, 4]


# -- the same failure everywhere


def all_of(items: list[int]) -> set[Item]:
    return {(i, j) for i, count in enumerate(items) for j in range(count)}


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("max_retries", [0, 3])
def test_a_job_that_fails_the_same_way_everywhere_stops_early(
    workers: int, max_retries: int
) -> None:
    items = [10] * 10_000
    bench = Bench(items, bad=all_of(items), workers=workers, max_retries=max_retries)
    dispatcher = bench.begin().dispatcher
    while not dispatcher.is_over:
        for slot in dispatcher.workers:
            if lease := bench.lease(slot):
                bench.answer(slot, lease)
    error = dispatcher.failure
    assert isinstance(error, JobError)
    assert error.code == "SameFailureEverywhere"
    assert "30 items spread over the whole input" in error.message
    assert error.message.count("ValueError: bad") == 1
    assert error.details == "score.py line 3"
    assert sum(bench.begun.values()) < 32 * workers + PROBES * (max_retries + 6) * 2
    assert dispatcher.counts.items_failed == len(failed_items(bench.records))


def test_crashes_everywhere_stop_a_job_sooner() -> None:
    bench = Bench([2] * 1000, workers=2, max_retries=1).begin()
    deaths = 0
    while not bench.dispatcher.is_over:
        for slot in (0, 1):
            lease = lease_of(bench, slot)
            bench.die(slot, CRASH, lease.range.first)
            deaths += 1
            if bench.dispatcher.is_over:
                break
        bench.all_ready()
    assert isinstance(bench.dispatcher.failure, JobError)
    assert bench.dispatcher.failure.code == "SameFailureEverywhere"
    assert deaths < 2 * PROBES_AFTER_DEATH * 4


@pytest.mark.parametrize("good", [(30, 0), (5_000, 3), (9_990, 9)])
def test_one_good_item_among_the_tried_keeps_the_job_going(good: Item) -> None:
    items = [10] * 10_000
    probe = good[0] * PROBES // 10_000 * 10_000 // PROBES   # the probe nearest to it
    bench = Bench(items, bad=all_of(items) - {(probe, item) for item in range(10)}, workers=2)
    bench.begin()
    for _ in range(2_000):
        for slot in (0, 1):
            if lease := bench.lease(slot):
                bench.answer(slot, lease)
    assert bench.dispatcher.failure is None


def test_bad_items_at_the_beginning_do_not_stop_a_job() -> None:
    items = [2] * 200
    bench = Bench(items, bad={(i, j) for i in range(50) for j in range(2)}, workers=2)
    bench.begin().finish()
    assert bench.dispatcher.failure is None
    assert bench.dispatcher.counts.items_failed == 100


def test_mini_batches_that_all_hold_one_bad_item_do_not_stop_a_job() -> None:
    items = [4] * 60
    bench = Bench(items, bad={(i, 1) for i in range(60)}, workers=2).begin().finish()
    assert bench.dispatcher.failure is None
    assert bench.dispatcher.counts.items_failed == 60


def test_a_failure_that_only_one_of_two_workers_meets_is_not_everywhere() -> None:
    items = [1] * 100
    bench = Bench(items, bad=all_of(items), workers=2, max_retries=0).begin()
    for _ in range(60):
        if lease := bench.lease(0):
            bench.answer(0, lease, scored=1)
    assert bench.dispatcher.failure is None


@pytest.mark.parametrize(("one", "other", "is_same"), [
    ('  File "score.py", line 3, in run\n', '  File "score.py", line 3, in run\n', True),
    ('  File "score.py", line 3, in run\n', '  File "score.py", line 4, in run\n', False),
    ('  File "score.py", line 3, in f\n  File "/lib/x.py", line 1, in g\n',
     '  File "score.py", line 3, in f\n  File "/lib/x.py", line 9, in g\n', True),
    ("", "", True),
])
def test_failures_of_one_cause_are_of_one_class_and_line_of_the_users(
    one: str, other: str, is_same: bool
) -> None:
    first = cause_of(Failure("Exception", "KeyError: 'a'", one))
    assert (first == cause_of(Failure("Exception", "KeyError: 'b'", other))) is is_same
    assert first != cause_of(Failure("Exception", "ValueError: 'a'", one))


# -- starts


@pytest.mark.parametrize(("workers", "failures"), [(1, 1), (2, 2), (8, 2)])
def test_init_that_fails_the_same_way_fails_the_job_at_once(workers: int, failures: int) -> None:
    bench = Bench([1] * 10, workers=workers).begin(ready=False)
    slots = bench.dispatcher.slots_to_start()
    for number in range(failures):
        assert bench.dispatcher.failure is None
        bench.dispatcher.on_start_failed(slots[number], NO_START)
    error = bench.dispatcher.failure
    assert isinstance(error, UserCodeError)
    assert error.code == "InitFailed"
    assert error.details == "the traceback"
    assert "init() of score.py failed: ValueError: x" in error.message


def test_starts_that_fail_in_many_ways_end_too() -> None:
    bench = Bench([1] * 10, workers=2).begin(ready=False)
    for number in range(STARTS_BEFORE_READY_MAX):
        assert bench.dispatcher.failure is None
        slot = (bench.dispatcher.slots_to_start() or [number % 2])[0]
        bench.dispatcher.on_start_failed(slot, Failure("StartFailed", f"number {number}"))
    assert bench.dispatcher.failure is not None


def test_lost_nodes_are_not_the_codes_fault() -> None:
    bench = Bench([1] * 10, workers=2).begin(ready=False)
    for _ in range(STARTS_BEFORE_READY_MAX):
        for slot in bench.dispatcher.slots_to_start():
            if bench.dispatcher.failure is None:
                bench.dispatcher.on_start_failed(slot, NO_NODE)
    assert isinstance(bench.dispatcher.failure, JobError)
    assert bench.dispatcher.failure.code == "Lost"


def test_a_slot_that_never_comes_back_is_given_up_and_the_others_go_on() -> None:
    bench = Bench([1] * 10, workers=2).begin(ready=False)
    bench.dispatcher.slots_to_start()
    bench.dispatcher.on_ready(0)
    for _ in range(STARTS_MAX):
        bench.dispatcher.on_start_failed(1, NO_START)
        bench.dispatcher.slots_to_start()
    assert bench.dispatcher.failure is None
    assert bench.dispatcher.workers[1].state == "lost"
    bench.die(0, KILLED, None)
    for _ in range(STARTS_MAX):
        assert bench.dispatcher.slots_to_start() == [0]
        bench.dispatcher.on_start_failed(0, NO_START)
    assert isinstance(bench.dispatcher.failure, UserCodeError)


def test_a_start_that_works_forgives_the_ones_before() -> None:
    bench = Bench([1] * 10, workers=1).begin()
    for _ in range(5):
        bench.die(0, KILLED, None)
        for _ in range(STARTS_MAX - 1):
            bench.dispatcher.slots_to_start()
            bench.dispatcher.on_start_failed(0, NO_START)
        bench.all_ready()
    assert bench.finish().dispatcher.counts.items_ok == 10


def test_what_a_slow_worker_has_behind_it_keeps_no_other_worker() -> None:
    """Its receipt comes only at the end of its lease, but it was seen at the last mini-batch."""
    bench = Bench([1] * 400, workers=4).begin()
    first = bench.lease(0)
    assert first is not None
    bench.answer(0, first, cost_s=1e-4)
    slow = bench.lease(0)
    assert slow is not None
    while lease := bench.lease(1):
        bench.answer(1, lease, cost_s=1e-4)
    size = slow.range.stop - slow.range.first
    assert size > 4
    dispatcher = bench.dispatcher
    assert dispatcher.slots_to_release(0.0) == dispatcher.slots_to_release(10.0) == []
    dispatcher.on_seen(0, slow.range.stop - 1)
    assert dispatcher.slots_to_release(20.0) == []
    assert len(dispatcher.slots_to_release(30.0)) == 2   # a spare stays
    bench.answer(0, slow)
    assert dispatcher.is_over
