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
        leads: Whether its thread has a place to call the model, and is to look for a batch.
        turn: Held until its thread is to go on: it is done, or leads.
    """

    __slots__ = (
        "inputs", "is_done", "key", "leads", "outputs", "raised", "rows", "since_s", "turn"
    )

    def __init__(self, key: Any, rows: int, inputs: Any) -> None:
        self.key = key
        self.rows = rows
        self.inputs = inputs
        self.outputs: Any = None
        self.raised: BaseException | None = None
        self.is_done = self.leads = False
        self.since_s = time.monotonic()
        self.turn = threading.Lock()
        self.turn.acquire()


class Combiner:
    """Calls a model with the requests that wait; the threads that ask are those that call.

    While as many calls run as may, requests gather. Whoever ends a call hands its place to the
    first of them, and wakes nobody else but those whose requests are done. Without a delay nothing
    ever waits for company.

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
        #: Told to those who lead and wait for company, when there is more.
        self._changed = threading.Condition()

    def submit(self, key: Any, rows: int, inputs: Any) -> Any:
        """Return the results of one request; blocks.

        Raises:
            Exception: What the call raised; all of its requests raise it.
        """
        mine = Waiting(key, rows, inputs)
        with self._changed:
            self._waiting.append(mine)
            if self._calls < self._calls_max:
                self._calls += 1
                mine.leads = True
            elif self._batching.wait_s > 0:
                self._changed.notify_all()
        while True:
            if not mine.leads:
                mine.turn.acquire()
            if mine.leads:
                self._lead(mine)
            if mine.is_done:
                break
        if mine.raised is not None:
            raise mine.raised
        return mine.outputs

    def _lead(self, mine: Waiting) -> None:
        """Call the model with what waits, and hand the place on."""
        with self._changed:
            batch = self._fitting()
            while batch and (wait_s := self._worth_waiting_s(batch)) > 0:
                self._changed.wait(wait_s)
                batch = self._fitting()
            batch = self._preferred(batch)
            self._waiting = self._waiting[len(batch):]
        raised: BaseException | None = None
        found: Sequence[Any] = ()
        try:
            if batch:
                found = self._run([one.inputs for one in batch])
        except BaseException as error:   # each asker's to tell; user code may raise anything
            raised = error
        with self._changed:
            for number, one in enumerate(batch):
                one.outputs = found[number] if raised is None else None
                one.raised = raised
                one.is_done = True
                if not one.leads:   # one that leads looks by itself
                    one.turn.release()
            mine.leads = False
            following = next((one for one in self._waiting if not one.leads), None)
            if following is None:
                self._calls -= 1
            else:
                following.leads = True
                following.turn.release()

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
