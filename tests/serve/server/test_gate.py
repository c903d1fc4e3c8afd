from __future__ import annotations

import asyncio

import pytest

from inferay.serve.server.gate import Gate, TooBusy

pytestmark = pytest.mark.anyio


def gate(places: int = 1, waiting_max: int = 2, wait_s: float = 30.0) -> Gate:
    return Gate(places, waiting_max=waiting_max, wait_s=wait_s)


async def waiting(one: Gate, count: int) -> None:
    while one.waiting != count:
        await asyncio.sleep(0)


async def test_places_are_given_in_order() -> None:
    one = gate()
    order: list[int] = []

    async def visit(number: int) -> None:
        await one.enter()
        order.append(number)
        await asyncio.sleep(0)
        one.leave()

    await asyncio.gather(*(visit(number) for number in range(3)))
    assert order == [0, 1, 2]
    assert (one.running, one.waiting) == (0, 0)


async def test_too_many_that_wait_are_refused_at_once() -> None:
    one = gate(waiting_max=1)
    await one.enter()
    second = asyncio.ensure_future(one.enter())
    await waiting(one, 1)
    with pytest.raises(TooBusy, match="too many"):
        await one.enter()
    one.leave()
    await second
    assert (one.running, one.waiting) == (1, 0)


async def test_who_waits_too_long_is_refused_and_forgotten() -> None:
    one = gate(wait_s=0.01)
    await one.enter()
    for _ in range(100):   # more than may wait: none of them stays
        with pytest.raises(TooBusy, match="in time"):
            await one.enter()
    assert one.waiting == len(one._waiting) == 0
    one.leave()
    await one.enter()


async def test_who_goes_away_while_waiting_takes_no_place() -> None:
    one = gate()
    await one.enter()
    gone, stays = (asyncio.ensure_future(one.enter()) for _ in range(2))
    await waiting(one, 2)
    gone.cancel()
    await waiting(one, 1)
    one.leave()
    await stays
    assert (one.running, one.waiting) == (1, 0)


async def test_who_goes_away_just_when_a_place_is_given_hands_it_on() -> None:
    one = gate()
    await one.enter()
    gone, stays = (asyncio.ensure_future(one.enter()) for _ in range(2))
    await waiting(one, 2)
    one.leave()    # to the first
    gone.cancel()  # which has not run since
    await stays
    assert (one.running, one.waiting) == (1, 0)
    one.leave()
    assert one.running == 0
