from __future__ import annotations

import asyncio
import copy
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferay.serve.server.threads import Threads

pytestmark = pytest.mark.anyio

WAIT_S = 30.0


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Let threads interrupt each other almost anywhere."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before_s)


def call(threads: Threads, function: Callable[[Any], Any], argument: Any) -> asyncio.Future[Any]:
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def tell(result: Any, raised: BaseException | None) -> None:
        if raised is not None:
            ended.set_exception(raised)
        else:
            ended.set_result(result)

    threads.submit(function, argument, tell)
    return ended


async def all_of(calls: list[asyncio.Future[Any]]) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*calls), WAIT_S)


async def learn_that_calls_are_short(threads: Threads) -> None:
    for number in range(100):
        await all_of([call(threads, abs, number)])


async def test_one_thread_calls_in_the_order_in_which_work_came() -> None:
    threads, order = Threads(1), list[int]()
    found = await all_of([call(threads, order.append, number) for number in range(50)])
    assert found == [None] * 50
    assert order == list(range(50))
    assert threads.count == 1


async def test_short_calls_share_few_threads() -> None:
    threads = Threads(64)
    await learn_that_calls_are_short(threads)
    for _ in range(20):
        await all_of([call(threads, abs, -number) for number in range(64)])
    assert threads.count < 16


async def test_calls_that_wait_for_each_other_get_a_thread_each() -> None:
    threads, barrier = Threads(16), threading.Barrier(16)
    await learn_that_calls_are_short(threads)
    await all_of([call(threads, barrier.wait, WAIT_S) for _ in range(16)])
    assert threads.count == 16


async def test_a_short_call_behind_a_long_one_does_not_wait_for_it() -> None:
    threads, is_over = Threads(2), threading.Event()
    await learn_that_calls_are_short(threads)
    long = call(threads, is_over.wait, WAIT_S)
    await all_of([call(threads, abs, -1)])
    assert not long.done()
    is_over.set()
    assert await long


async def test_there_are_never_more_threads_than_there_may_be() -> None:
    threads, now, most, lock = Threads(3), 0, 0, threading.Lock()

    def hold(_: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)
        with lock:
            now -= 1

    await all_of([call(threads, hold, number) for number in range(30)])
    assert (most, threads.count) == (3, 3)


async def test_what_a_call_raises_is_told_and_the_thread_goes_on() -> None:
    threads = Threads(1)
    for name in ("x", ""):
        with pytest.raises(ValueError, match="literal"):
            await all_of([call(threads, int, name)])
    assert await all_of([call(threads, abs, -1)]) == [1]
    assert threads.count == 1


async def test_no_argument_or_result_is_held_by_a_thread_that_sleeps() -> None:
    threads, gone = Threads(1), threading.Event()

    async def hand_over() -> None:
        body = frozenset((object(),))   # can be referred to weakly, unlike bytes
        weakref.finalize(body, gone.set)
        await call(threads, copy.copy, body)

    await hand_over()
    await asyncio.sleep(0)   # the loop's own hold on this step ends with it
    assert gone.wait(WAIT_S)


@pytest.mark.parametrize("short_s", [0.0, 0.0005], ids=["long calls", "short calls"])
async def test_no_call_is_forgotten_however_threads_interrupt_each_other(
    short_s: float, eager_switches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferay.serve.server.threads.SHORT_S", short_s)
    threads, draw = Threads(3), random.Random(0)
    for _ in range(4000):   # so that work comes just when a thread goes to sleep
        numbers = range(draw.randrange(1, 4))
        assert await all_of([call(threads, abs, -number) for number in numbers]) == list(numbers)


@settings(deadline=None, max_examples=25)
@given(
    count_max=st.integers(1, 6),
    bursts=st.lists(st.lists(st.sampled_from([0, 0, 0, 0.0002, 0.003]), max_size=12), max_size=6),
)
def test_every_call_ends_once_however_long_it_takes(
    count_max: int, bursts: list[list[float]]
) -> None:
    async def drive() -> None:
        threads = Threads(count_max)
        for burst in bursts:
            await all_of([call(threads, time.sleep, call_s) for call_s in burst])
        assert threads.count <= count_max

    asyncio.run(drive())   # a call that is told twice is an InvalidStateError
