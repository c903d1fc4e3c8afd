from __future__ import annotations

import asyncio

import pytest

from inferay.serve.server.deadlines import Deadlines

pytestmark = pytest.mark.anyio


async def expired(found: list[str], count: int) -> None:
    async with asyncio.timeout(30):
        while len(found) < count:
            await asyncio.sleep(0.001)


async def test_what_is_not_discarded_in_time_expires_in_order_and_once() -> None:
    found: list[str] = []
    deadlines = Deadlines(0.01, found.append)
    for name in ("first", "second", "third"):
        deadlines.add(name)
    deadlines.discard("second")
    await expired(found, 2)
    assert found == ["first", "third"]
    deadlines.discard("first")   # too late, and harmless


async def test_nothing_expires_before_its_time() -> None:
    loop = asyncio.get_running_loop()
    found: list[tuple[str, float]] = []
    deadlines = Deadlines[str](0.05, lambda name: found.append((name, loop.time())))
    due_s = {}
    for name in ("first", "second"):
        deadlines.add(name)
        due_s[name] = loop.time() + 0.05
        await asyncio.sleep(0.02)
    while len(found) < 2:
        await asyncio.sleep(0.001)
    assert all(at_s >= due_s[name] - 0.002 for name, at_s in found)   # of the clock's steps


async def test_a_time_begins_anew_after_all_others_are_over() -> None:
    found: list[str] = []
    deadlines = Deadlines(0.005, found.append)
    for name in ("first", "second"):
        deadlines.add(name)
        await expired(found, 1)
        assert found.pop() == name
