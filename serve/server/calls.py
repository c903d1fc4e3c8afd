"""Calls of the user's `run()`: in a thread, on the event loop, or several requests at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from inferay.engine.scoring.tracebacks import user_traceback
from inferay.serve.server.answers import answer_of
from inferay.serve.server.batching import Batcher
from inferay.serve.server.entry import Entry
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


class Calls:
    """Starts calls; whoever starts them keeps to the number that there may be.

    Args:
        entry: The user's `run()`; its `init()` is done.
        at_once: Requests that are scored at once.
        code_dir: Of the script, for the user's tracebacks.
        batching: None for a call for each request.
    """

    def __init__(
        self, entry: Entry, at_once: int, code_dir: Path, batching: Batching | None = None
    ) -> None:
        self._entry = entry
        self._code_dir = code_dir
        self._threads = ThreadPoolExecutor(at_once, "run")
        self._batcher: Batcher[Arguments, Answer] | None = None
        if batching is not None:
            self._batcher = Batcher(
                self._call_together, size_max=batching.size_max, wait_s=batching.wait_s,
                batches_max=-(-at_once // batching.size_max),
            )

    @property
    def can_cancel(self) -> bool:
        """Whether cancelling a call ends it: no thread can be stopped, nor one of a batch."""
        return self._entry.is_async and self._batcher is None

    def start(self, request: Request) -> asyncio.Future[Answer]:
        """Return the answer to be; it never raises but when it is cancelled."""
        if self._batcher is not None:
            return asyncio.ensure_future(self._call_in_batch(self._batcher, request))
        if self._entry.is_async:
            return asyncio.ensure_future(self._await(request))
        return asyncio.get_running_loop().run_in_executor(self._threads, self._call, request)

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
        except asyncio.CancelledError:   # its time is over
            raise
        except BaseException as error:   # user code may raise anything, SystemExit too
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
        except asyncio.CancelledError:
            raise
        except BaseException as error:   # user code may raise anything, SystemExit too
            answer = self._raised(error, began_s)
            return [answer] * len(batch)
        finally:
            for one in batch:
                self._entry.release(one)
        return [self._returned(result, began_s) for result in found]

    def _returned(self, result: Any, began_s: float) -> Answer:
        run_s = time.perf_counter() - began_s
        try:
            answer = answer_of(result, self._in_thread)
        except Exception as error:   # what is encoded is the user's too
            return self._raised(error, began_s)
        answer.run_s = run_s
        if answer.has_failed is None:
            answer.has_failed = False
        return answer

    def _raised(self, error: BaseException, began_s: float) -> Answer:
        _log.error("run() raised\n%s", user_traceback(error, self._code_dir))
        return error_answer(
            500, _RUN_RAISED, has_failed=True, run_s=time.perf_counter() - began_s
        )

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


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
