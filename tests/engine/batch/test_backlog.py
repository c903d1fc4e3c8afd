from __future__ import annotations

import pytest

from inferay.engine.batch.backlog import Backlog
from inferay.engine.batch.messages import Lease
from inferay.engine.batch.units import Range


def backlog_of(*ranges: tuple[int, int]) -> Backlog:
    backlog = Backlog()
    for first, stop in ranges:
        backlog.add(Range(first, stop))
    return backlog


def drained(backlog: Backlog) -> list[tuple[int, int]]:
    found = []
    while backlog.size:
        taken = backlog.take(100)
        found.append((taken.first, taken.stop))
    return found


def test_what_is_given_back_is_next_and_all_else_keeps_its_order() -> None:
    backlog = backlog_of((0, 10), (12, 14))
    assert backlog.take(4) == Range(0, 4)
    backlog.requeue(Lease(1, Range(2, 4), 1, 1.0))
    assert (backlog.size, drained(backlog)) == (10, [(2, 4), (4, 10), (12, 14)])


@pytest.mark.parametrize("lease", [
    Lease(1, Range(3, 4), 2, 1.0), Lease(1, Range(3, 4, (0, 2)), 1, 1.0),
])
def test_a_retry_or_a_part_comes_back_as_the_attempt_that_it_was(lease: Lease) -> None:
    backlog = backlog_of((0, 3))
    backlog.requeue(lease)
    assert (list(backlog.retries), len(backlog)) == ([(lease.range, lease.attempt)], 4)


@pytest.mark.parametrize(("index", "left"), [
    (0, [(1, 5), (7, 9)]), (2, [(0, 2), (3, 5), (7, 9)]), (4, [(0, 4), (7, 9)]),
    (8, [(0, 5), (7, 8)]),
])
def test_one_mini_batch_is_taken_out_of_the_middle(
    index: int, left: list[tuple[int, int]]
) -> None:
    backlog = backlog_of((0, 5), (7, 9))
    assert backlog.take_one_of([5, index], lambda one: True) == (Range(index, index + 1), 1)
    assert (backlog.size, drained(backlog)) == (6, left)
    assert backlog.take_one_of([5], lambda one: True) is None


def test_of_the_retries_only_one_that_may_be_taken_is() -> None:
    backlog = backlog_of((0, 1))
    backlog.retries.extend([(Range(3, 4), 2), (Range(4, 5), 3)])
    assert backlog.take_one_of([3, 4], lambda one: one.first == 4) == (Range(4, 5), 3)
    assert list(backlog.retries) == [(Range(3, 4), 2)]
