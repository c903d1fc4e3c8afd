"""Dynamic batching: requests of several threads that become one call of a model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from inferay.engine.scoring.triton.config import Batching


class Waiting:
    """A request in the queue.

    Attributes:
        key: Requests with equal keys go together.
        rows: How many it has.
        inputs: Its arrays.
        outputs: Once it is done, its results.
        raised: Once it is done, what was raised in place of them.
    """

    __slots__ = ("inputs", "is_done", "is_taken", "key", "outputs", "raised", "rows", "since_s")

    def __init__(self, key: Any, rows: int, inputs: Any) -> None:
        self.key = key
        self.rows = rows
        self.inputs = inputs
        self.outputs: Any = None
        self.raised: BaseException | None = None
        self.is_taken = self.is_done = False
        self.since_s = time.monotonic()


class Combiner:
    """Calls a model with the requests that wait; the threads that ask are those that call.

    While as many calls run as may, requests gather. Whoever finds room takes the first of them and
    those after it that fit, in their order. Without a delay nothing ever waits for company.

    Args:
        run: Returns the results of requests, in their order.
        rows_max: Of one call.
        calls_max: Calls at once.
        batching: What is worth waiting for.
    """

    def __init__(
        self, run: Callable[[Sequence[Any]], Sequence[Any]], rows_max: int, calls_max: int,
        batching: Batching,
    ) -> None:
        self._run = run
        self._rows_max = rows_max
        self._calls_max = calls_max
        self._batching = batching
        self._enough = max(batching.sizes, default=rows_max)
        self._waiting: list[Waiting] = []
        self._calls = 0
        self._changed = threading.Condition()

    def submit(self, key: Any, rows: int, inputs: Any) -> Any:
        """Return the results of one request; blocks.

        Raises:
            Exception: What the call raised; all of its requests raise it.
        """
        if self._begin_alone():
            return self._call_alone(inputs)
        mine = Waiting(key, rows, inputs)
        with self._changed:
            self._waiting.append(mine)
            self._changed.notify_all()   # one that waits for company may have it now
        while True:
            with self._changed:
                batch = self._next(mine)
            if batch is None:
                break
            self._call(batch)
        if mine.raised is not None:
            raise mine.raised
        return mine.outputs

    def _begin_alone(self) -> bool:
        """Return whether nothing else is in the way, and no company is to be waited for."""
        if self._batching.wait_s > 0:
            return False
        with self._changed:
            is_free = not self._waiting and self._calls < self._calls_max
            self._calls += is_free
        return is_free

    def _call_alone(self, inputs: Any) -> Any:
        try:
            return self._run([inputs])[0]
        finally:
            with self._changed:
                self._calls -= 1
                if self._waiting:
                    self._changed.notify_all()

    def _next(self, mine: Waiting) -> list[Waiting] | None:
        """Return what this thread is to call next, or None when its own request is done."""
        while not mine.is_done:
            wait_s = None
            if not mine.is_taken and self._calls < self._calls_max:
                batch = self._fitting()
                wait_s = self._worth_waiting_s(batch)
                if wait_s <= 0:
                    batch = self._preferred(batch)
                    self._waiting = [one for one in self._waiting if one not in batch]
                    for one in batch:
                        one.is_taken = True
                    self._calls += 1
                    return batch
            self._changed.wait(wait_s)
        return None

    def _fitting(self) -> list[Waiting]:
        """Return the first request and those right after it that fit to it."""
        batch: list[Waiting] = []
        rows = 0
        for one in self._waiting:
            rows += one.rows
            if batch and (one.key != batch[0].key or rows > self._rows_max):
                break
            batch.append(one)
        return batch

    def _worth_waiting_s(self, batch: list[Waiting]) -> float:
        if self._batching.wait_s <= 0 or len(batch) < len(self._waiting):
            return 0.0
        if sum(one.rows for one in batch) >= self._enough:
            return 0.0
        return batch[0].since_s + self._batching.wait_s - time.monotonic()

    def _preferred(self, batch: list[Waiting]) -> list[Waiting]:
        """Return as much of it as makes the largest preferred size, or all of it."""
        best, rows = 0, 0
        for number, one in enumerate(batch, 1):
            rows += one.rows
            if rows in self._batching.sizes:
                best = number
        return batch[:best] if best else batch

    def _call(self, batch: list[Waiting]) -> None:
        raised: BaseException | None = None
        found: Sequence[Any] = ()
        try:
            found = self._run([one.inputs for one in batch])
        except BaseException as error:   # each asker's to tell; user code may raise anything
            raised = error
        with self._changed:
            for number, one in enumerate(batch):
                one.outputs = found[number] if raised is None else None
                one.raised = raised
                one.is_done = True
            self._calls -= 1
            self._changed.notify_all()
