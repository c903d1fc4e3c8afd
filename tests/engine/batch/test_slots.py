from __future__ import annotations

import itertools

import pytest

from inferay.engine.batch.messages import Lease
from inferay.engine.batch.slots import (
    LEASES_PER_WORKER,
    RELEASE_AFTER_S,
    STARTS_PER_TURN,
    Slots,
)
from inferay.engine.batch.units import Range

_ids = itertools.count(1)


def lease() -> Lease:
    return Lease(next(_ids), Range(0, 1), 1, 1.0)


def ready(count: int, needed: int = 100) -> Slots:
    slots = Slots(count)
    for slot in slots.to_start(needed):
        slots.ready(slot)
    return slots


def released(slots: Slots, needed: int) -> list[int]:
    """Return what is given back once there have been too many for long enough."""
    return slots.to_release(needed, 100.0) + slots.to_release(needed, 100.0 + RELEASE_AFTER_S)


def test_a_thousand_workers_are_asked_for_a_few_at_a_time() -> None:
    slots = Slots(1000)
    turns = [slots.to_start(10_000) for _ in range(40)]
    assert max(map(len, turns)) == STARTS_PER_TURN
    assert sorted(itertools.chain(*turns)) == list(range(1000))


def test_no_more_workers_are_asked_for_than_could_have_something_to_do() -> None:
    slots = Slots(10)
    assert slots.to_start(3) == [0, 1, 2]
    assert slots.to_start(3) == []
    assert slots.to_start(5) == [3, 4]


def test_an_idle_worker_takes_before_one_that_has_something_to_do() -> None:
    slots = ready(2)
    slots.take(0, lease())
    assert slots.with_room(LEASES_PER_WORKER) == 1
    slots.take(1, lease())
    assert (slots.with_room(1), slots.with_room(LEASES_PER_WORKER)) == (None, 0)
    for _ in range(LEASES_PER_WORKER - 1):
        for slot in (0, 1):
            assert slots.with_room(LEASES_PER_WORKER) == slot
            slots.take(slot, lease())
    assert slots.with_room(LEASES_PER_WORKER) is None


def test_a_worker_has_room_again_when_it_has_answered() -> None:
    slots = ready(1)
    one, two = lease(), lease()
    slots.take(0, one)
    slots.take(0, two)
    assert slots.give_back(0, one.id) == one
    assert slots.give_back(0, one.id) is None
    assert (slots.with_room(1), slots.with_room(2)) == (None, 0)


def test_idle_workers_are_given_back_but_for_one_spare() -> None:
    slots = ready(5)
    slots.take(2, lease())
    assert released(slots, needed=1) == [0, 1, 3]
    assert slots.count("idle") == 1
    assert slots.count("busy") == 1


def test_workers_that_wait_for_a_place_are_given_back_first_and_idle_ones_last() -> None:
    slots = Slots(3)
    slots.to_start(3)
    slots.place(1)
    slots.ready(2)
    assert released(slots, needed=0) == [0, 1]
    assert slots.workers[2].state == "ready"


def test_a_short_excess_gives_nothing_back() -> None:
    slots = ready(5)
    assert slots.to_release(1, 100.0) == []
    assert slots.to_release(5, 100.0 + RELEASE_AFTER_S) == []
    assert slots.to_release(1, 101.0 + RELEASE_AFTER_S) == []


def test_what_was_given_back_is_started_again_when_more_work_comes_up() -> None:
    slots = ready(5)
    gone = released(slots, needed=1)
    assert slots.to_start(5) == gone


def test_a_worker_that_fell_is_started_where_it_was_while_others_wait_for_a_place() -> None:
    slots = Slots(3)
    slots.to_start(3)
    slots.ready(0)
    slots.take(0, lease())
    assert len(slots.fall(0, has_place=True)) == 1
    assert slots.to_start(1) == [0]
    assert slots.workers[0].state == "starting"


def test_a_worker_that_fell_gives_its_place_back_if_others_are_enough() -> None:
    slots = ready(2)
    slots.fall(0, has_place=True)
    assert slots.to_start(1) == []
    assert slots.to_release(1, 0.0) == [0]


def test_a_worker_that_fell_with_its_node_has_to_wait_for_a_place() -> None:
    slots = ready(1)
    slots.fall(0, has_place=False)
    assert slots.to_start(1) == [0]
    assert slots.workers[0].state == "waiting"


def test_a_slot_that_is_given_up_gives_its_place_back_once() -> None:
    slots = ready(2)
    slots.lose(1)
    assert slots.to_release(2, 0.0) == [1]
    assert slots.to_release(2, 100.0) == []
    assert slots.to_start(2) == []


@pytest.mark.parametrize("state", ["waiting", "starting", "ready"])
def test_states_are_counted(state: str) -> None:
    slots = Slots(2)
    slots.to_start(1)
    if state != "waiting":
        slots.place(0)
    if state == "ready":
        slots.ready(0)
    assert slots.count(state) == 1
    assert slots.count("stopped") == 1
    assert slots.count("waiting", "starting", "ready") == 1


def test_a_worker_that_is_wanted_again_before_its_place_was_given_back_keeps_it() -> None:
    slots = ready(2)
    slots.fall(0, has_place=True)
    slots.to_start(1)
    assert slots.to_start(2) == [0]
    assert slots.to_release(2, 0.0) == []
