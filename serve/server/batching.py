"""Requests that are in flight together, scored by one call of `run()`.

Off unless a deployment asks for it: one call for one request is what Azure's scripts expect.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Gathers items while a batch is scored. Belongs to one event loop.

    A lone item never waits. While another batch is scored, an incomplete one waits for more items
    until it is complete, `wait_s` is over, or that other batch is done.

    Args:
        score: Scores items; returns one result for each, in their order.
        size_max: Items of one batch.
        wait_s: How long an incomplete batch waits while another is scored.
        batches_max: Batches that are scored at once.
    """

    def __init__(
        self, score: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, size_max: int,
        wait_s: float, batches_max: int = 1,
    ) -> None:
        self._score = score
        self._size_max = size_max
        self._wait_s = wait_s
        self._batches_max = batches_max
        self._pending: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def submit(self, item: T) -> R:
        """Return the result of an item.

        A caller that is cancelled leaves its batch; the others' results are not touched by it.
        """
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._pending.append((item, result))
        self._begin_what_is_due()
        return await result

    def _begin_what_is_due(self) -> None:
        while self._pending and len(self._running) < self._batches_max:
            is_complete = len(self._pending) >= self._size_max
            if not is_complete and self._running and self._wait_s > 0:
                if self._timer is None:
                    loop = asyncio.get_running_loop()
                    self._timer = loop.call_later(self._wait_s, self._begin)
                return
            self._begin()

    def _begin(self) -> None:
        """Begin one batch of what waits, as far as there is room for it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._pending and len(batch) < self._size_max:
            item, result = self._pending.popleft()
            if not result.done():   # else its caller has gone
                batch.append((item, result))
        if batch:
            task = asyncio.ensure_future(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._begin_what_is_due()

    async def _run(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._score([item for item, _ in batch])
        except BaseException as error:   # each caller's to tell, whatever it is
            for _, result in batch:
                if not result.done():
                    result.set_exception(error)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        for (_, result), found in zip(batch, results, strict=True):
            if not result.done():
                result.set_result(found)
