"""Calls of the user's `run()`: in a thread, on the event loop, or several requests at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from inferay.engine.scoring.tracebacks import user_traceback
from inferay.serve.server.answers import answer_of
from inferay.serve.server.batching import Batcher
from inferay.serve.server.entry import Handler
from inferay.serve.server.http import Answer, Refused, Request, error_answer

_log = logging.getLogger("inferay.server")

_RUN_RAISED = "An unexpected error occurred in scoring script. Check the logs for more info."

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Batching:
    """How requests are gathered: `run()` gets a list for each argument, and returns one.

    Attributes:
        size_max: Requests of one call.
        wait_s: How long an incomplete batch waits while another is scored.
    """

    size_max: int
    wait_s: float = 0.0


class Overdue(Exception):
    """Raised when a call has exceeded its time; it may still run."""


class CutShort(Exception):
    """Raised when the rest of an answer cannot be made: what makes it has raised, and is logged."""


class Call:
    """A call for one request. It ends when it ends: its client may have gone long before.

    Args:
        has_ended: Told once, on the event loop, when nothing of it runs any more.

    Attributes:
        answer: For the one who started it, who may give it up. It raises `Overdue`.
        is_over: Whether it has ended.
        is_left: Whether nobody waits for it any more: said by the one who did.
    """

    __slots__ = ("_cancel", "_has_ended", "answer", "is_left", "is_over")

    def __init__(self, has_ended: Callable[[Call], None]) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.is_over = False
        self.is_left = False
        self._has_ended = has_ended
        self._cancel: Callable[[], object] | None = None

    @property
    def is_streamed(self) -> bool:
        """Whether its answer is made while it is sent."""
        done = self.answer
        if not done.done() or done.cancelled() or done.exception() is not None:
            return False
        return not isinstance(done.result().body, bytes)

    def run(self, call: Coroutine[Any, Any, Answer], *, can_cancel: bool) -> None:
        """Run it on the event loop."""
        task = asyncio.ensure_future(call)
        task.add_done_callback(self._end_as)
        self._cancel = task.cancel if can_cancel else None

    def expire(self) -> None:
        """Say that its time is over; it runs on."""
        if not self.answer.done():
            self.answer.set_exception(Overdue())

    def cancel(self) -> None:
        """End it if that is possible: no thread can be stopped, nor one of a batch."""
        if self._cancel is not None:
            self._cancel()

    def end(self, answer: Answer | None, raised: BaseException | None) -> None:
        """Say that it has ended, with an answer if nothing is wrong but what `run()` does."""
        self.is_over = True
        if not self.answer.done():   # else its client has gone
            if answer is not None:
                self.answer.set_result(answer)
            elif raised is not None:
                self.answer.set_exception(raised)
            else:
                self.answer.cancel()
        self._has_ended(self)

    def _end_as(self, task: asyncio.Task[Answer]) -> None:
        if task.cancelled():
            self.end(None, None)
        elif (raised := task.exception()) is not None:
            self.end(None, raised)
        else:
            self.end(task.result(), None)


class Calls:
    """Starts calls; whoever starts them keeps to the number that there may be.

    Args:
        entry: The user's `run()`; its `init()` is done.
        at_once: Requests that are scored at once.
        code_dir: Of the script, for the user's tracebacks.
        batching: None for a call for each request.
    """

    def __init__(
        self, entry: Handler, at_once: int, code_dir: Path, batching: Batching | None = None
    ) -> None:
        self._entry = entry
        self._code_dir = code_dir
        self._threads = entry.threads(at_once)
        self._batcher: Batcher[Arguments, Answer] | None = None
        if batching is not None:
            self._batcher = Batcher(
                self._call_together, size_max=batching.size_max, wait_s=batching.wait_s,
                batches_max=-(-at_once // batching.size_max),
            )

    def start(self, request: Request, has_ended: Callable[[Call], None]) -> Call:
        """Start the call for a request."""
        call = Call(has_ended)
        if self._batcher is not None:
            call.run(self._call_in_batch(self._batcher, request), can_cancel=False)
        elif self._entry.is_async:
            call.run(self._await(request), can_cancel=True)
        else:
            self._threads.submit(self._call, request, call.end)
        return call

    def _call(self, request: Request) -> Answer:
        """Call a plain `run()`; in a thread."""
        try:
            arguments = self._entry.arguments(request)
        except Refused as refused:
            return error_answer(refused.status, refused.message)
        began_s = time.perf_counter()
        try:
            result = self._entry.run(**arguments)
        except BaseException as error:   # user code may raise anything, SystemExit too
            return self._raised(error, began_s)
        finally:
            self._entry.release(arguments)
        return self._returned(result, began_s)

    async def _await(self, request: Request) -> Answer:
        """Await an `async` `run()`; on the event loop."""
        try:
            arguments = self._entry.arguments(request)
        except Refused as refused:
            return error_answer(refused.status, refused.message)
        began_s = time.perf_counter()
        try:
            result = await self._entry.run(**arguments)
        except BaseException as error:   # user code may raise anything, SystemExit too
            if _is_cancelled():
                raise
            return self._raised(error, began_s)
        finally:
            self._entry.release(arguments)
        return self._returned(result, began_s)

    async def _call_in_batch(self, batcher: Batcher[Arguments, Answer], request: Request) -> Answer:
        try:
            arguments = self._entry.arguments(request)
        except Refused as refused:
            return error_answer(refused.status, refused.message)
        return await batcher.submit(arguments)

    async def _call_together(self, batch: Sequence[Arguments]) -> Sequence[Answer]:
        """Return the answers of requests whose arguments are handed over as lists."""
        together = {name: [one[name] for one in batch] for name in batch[0]}
        began_s = time.perf_counter()
        try:
            if self._entry.is_async:
                results = await self._entry.run(**together)
            else:
                results = await self._in_thread(partial(self._entry.run, **together))
            found = _one_for_each(results, len(batch))
        except BaseException as error:   # user code may raise anything, SystemExit too
            if _is_cancelled():
                raise
            answer = self._raised(error, began_s)
            return [answer] * len(batch)
        finally:
            for one in batch:
                self._entry.release(one)
        return [self._returned(result, began_s) for result in found]

    def _returned(self, result: Any, began_s: float) -> Answer:
        run_s = time.perf_counter() - began_s
        try:
            answer = answer_of(result, self._make_piece)
        except Exception as error:   # what is encoded is the user's too
            return self._raised(error, began_s)
        answer.run_s = run_s
        if answer.has_failed is None:
            answer.has_failed = False
        return answer

    def _raised(self, error: BaseException, began_s: float) -> Answer:
        if isinstance(error, Refused):   # a model's: only calling it told that the input is wrong
            return error_answer(error.status, error.message)
        _log.error("run() raised\n%s", user_traceback(error, self._code_dir))
        return error_answer(
            500, _RUN_RAISED, has_failed=True, run_s=time.perf_counter() - began_s
        )

    async def _make_piece(self, make: Callable[[], Any]) -> Any:
        """Return what the script makes of an answer that is being sent.

        Raises:
            CutShort: It raised.
        """
        try:
            return await self._in_thread(make)
        except BaseException as error:   # user code may raise anything, SystemExit too
            if _is_cancelled():
                raise
            said = user_traceback(error, self._code_dir)
            _log.error("run() raised while its answer was sent\n%s", said)
            raise CutShort from None

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        ended: asyncio.Future[tuple[Any, BaseException | None]]
        ended = asyncio.get_running_loop().create_future()

        def tell(result: Any, raised: BaseException | None) -> None:
            if not ended.done():   # else who waited has gone
                ended.set_result((result, raised))

        self._threads.submit(_call_without, function, tell)
        result, raised = await ended
        if raised is not None:
            raise raised
        return result


def _is_cancelled() -> bool:
    """Return whether this task's time is over; user code may raise a CancelledError of its own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _call_without(function: Callable[[], Any]) -> Any:
    return function()


def _one_for_each(results: Any, count: int) -> list[Any]:
    """Return a batch's results as a list.

    Raises:
        ValueError: They are not as many as the requests.
    """
    is_list = isinstance(results, (list, tuple)) or hasattr(results, "tolist")
    found = list(results) if is_list else None
    if found is None or len(found) != count:
        given = type(results).__name__ if found is None else f"{len(found)} results"
        raise ValueError(
            f"run() was given {count} requests at once (inferay.max_batch_size) and has to return "
            f"a list with a result for each; it returned {given}"
        )
    return found
