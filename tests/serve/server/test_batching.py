from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from inferay.serve.server.batching import Batcher

pytestmark = pytest.mark.anyio


class Scorer:
    """Doubles numbers, a batch whenever the test lets it; keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = asyncio.Event()

    async def score(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        await self.may_go.wait()
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def submit(batcher: Batcher[int, int], *items: int) -> list[asyncio.Future[int]]:
    return [asyncio.ensure_future(batcher.submit(item)) for item in items]


async def test_a_lone_item_does_not_wait() -> None:
    scorer = Scorer()
    batcher = Batcher(scorer.score, size_max=8, wait_s=3600)
    [first] = submit(batcher, 1)
    await settle()
    assert scorer.batches == [[1]]
    scorer.may_go.set()
    assert await first == 2


async def test_what_comes_meanwhile_is_one_batch() -> None:
    scorer = Scorer()
    batcher = Batcher(scorer.score, size_max=3, wait_s=0)
    calls = submit(batcher, 1, 2, 3, 4, 5)
    await settle()
    scorer.may_go.set()
    assert await asyncio.gather(*calls) == [2, 4, 6, 8, 10]
    assert scorer.batches == [[1], [2, 3, 4], [5]]


async def test_an_incomplete_batch_waits_no_longer_than_it_may() -> None:
    scorer = Scorer()
    batcher = Batcher(scorer.score, size_max=3, wait_s=0.01, batches_max=2)
    calls = submit(batcher, 1, 2)
    await settle()
    assert scorer.batches == [[1]]
    while len(scorer.batches) < 2:
        await asyncio.sleep(0.001)
    assert scorer.batches == [[1], [2]]
    scorer.may_go.set()
    assert await asyncio.gather(*calls) == [2, 4]


async def test_a_complete_batch_does_not_wait() -> None:
    scorer = Scorer()
    batcher = Batcher(scorer.score, size_max=2, wait_s=3600, batches_max=2)
    calls = submit(batcher, 1, 2, 3)
    await settle()
    assert scorer.batches == [[1], [2, 3]]
    scorer.may_go.set()
    assert await asyncio.gather(*calls) == [2, 4, 6]


async def test_a_caller_that_goes_away_harms_nobody() -> None:
    scorer = Scorer()
    batcher = Batcher(scorer.score, size_max=3, wait_s=0)
    first, second, third, fourth = submit(batcher, 1, 2, 3, 4)
    await settle()
    first.cancel()    # in a batch that is scored
    third.cancel()    # while it waits
    await settle()
    scorer.may_go.set()
    assert [await second, await fourth] == [4, 8]
    assert scorer.batches == [[1], [2, 4]]


async def test_a_batch_that_fails_fails_for_its_own_callers_alone() -> None:
    scorer = Scorer()
    batcher = Batcher(scorer.score, size_max=2, wait_s=0)
    calls = submit(batcher, 1, 13, 2, 3, 4)
    await settle()
    scorer.may_go.set()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [one for one in found if isinstance(one, int)] == [2, 6, 8]
    assert [str(one) for one in found if isinstance(one, ValueError)] == ["13", "13"]
