from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from inferay.engine.scoring.triton.combiner import Combiner
from inferay.engine.scoring.triton.config import Batching


class Model:
    """Answers each request with itself; its first call lasts until it is let go."""

    def __init__(self, rows_max: int = 4, batching: Batching | None = None) -> None:
        self.calls: list[list[int]] = []
        self.is_busy = threading.Event()
        self.may_end = threading.Event()
        self.combiner = Combiner(self.run, rows_max, 1, batching or Batching())

    def run(self, requests: Sequence[int]) -> Sequence[Any]:
        self.calls.append(list(requests))
        if len(self.calls) == 1:
            self.is_busy.set()
            assert self.may_end.wait(30)
        if 13 in requests:
            raise RuntimeError("thirteen")
        return list(requests)

    def wait_for(self, count: int) -> None:
        """Wait until as many requests wait for the model."""
        while len(self.combiner._waiting) < count:
            threading.Event().wait(0.001)


def ask(model: Model, rows: Sequence[tuple[str, int, int]]) -> list[Future[Any]]:
    """Ask with the first request, and with the others while it is called, in their order."""
    pool = ThreadPoolExecutor(len(rows))
    found = []
    for at, (key, size, request) in enumerate(rows):
        found.append(pool.submit(model.combiner.submit, key, size, request))
        if at == 0:
            assert model.is_busy.wait(30)
        else:
            model.wait_for(at)
    model.may_end.set()
    pool.shutdown()
    return found


def test_what_waits_is_called_together_as_far_as_it_fits(
) -> None:
    model = Model()
    found = ask(model, [("a", 1, 0), ("a", 2, 1), ("a", 2, 2), ("a", 1, 3), ("b", 1, 4)])
    assert [one.result() for one in found] == [0, 1, 2, 3, 4]
    assert model.calls == [[0], [1, 2], [3], [4]]


def test_a_preferred_size_is_taken_where_it_can_be_made() -> None:
    model = Model(batching=Batching((2,)))
    ask(model, [("a", 1, 0), ("a", 1, 1), ("a", 1, 2), ("a", 1, 3)])
    assert model.calls == [[0], [1, 2], [3]]


def test_a_request_waits_for_company_as_long_as_it_is_told() -> None:
    model = Model(rows_max=2, batching=Batching((), 30.0))
    model.may_end.set()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda one: model.combiner.submit("a", 1, one), (1, 2)))
    assert (found, sorted(model.calls[0])) == ([1, 2], [1, 2])


def test_alone_it_is_called_when_the_delay_is_over() -> None:
    model = Model(batching=Batching((), 0.01))
    model.may_end.set()
    assert model.combiner.submit("a", 1, 7) == 7


def test_all_of_a_call_that_raised_are_told_and_the_next_ones_are_not() -> None:
    model = Model()
    found = ask(model, [("a", 1, 0), ("a", 1, 13), ("a", 1, 2), ("b", 1, 3)])
    assert found[0].result() == 0
    for one in found[1:3]:
        with pytest.raises(RuntimeError, match="thirteen"):
            one.result()
    assert found[3].result() == 3
