"""Threads for calls that block: as few as keep up, woken as seldom as that allows.

While calls are short, one thread takes one after the other: a second would not be faster under the
interpreter's lock, and each hand-over between threads costs as much as such a call. Once calls
take long, each gets a thread of its own, as far as there may be.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

#: Called on the event loop with what a call returned, or with what it raised.
Tell = Callable[[Any, BaseException | None], None]

#: Calls that take less are short. A hand-over costs a tenth of it, or more.
SHORT_S = 0.0005

#: How often the oldest call that waits is looked at. After two looks, another thread takes it.
LOOK_S = 0.001

#: Of a new call's time in the mean of all.
_WEIGHT = 0.125


class Threads:
    """Calls functions in threads of its own, in the order in which they were handed in.

    `submit` belongs to one event loop. The threads are daemons: no call that never ends holds up
    the end of the process.

    Args:
        count_max: Threads at most; they are started when they are needed.
        clock: Says how long calls take. `time.thread_time` is for calls that only compute: what
            they wait for, each other and the interpreter's lock, does not count as theirs.
    """

    def __init__(
        self, count_max: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._count_max = count_max
        self._clock = clock
        self._count = 0
        self._work: deque[tuple[Callable[[Any], Any], Any, Tell]] = deque()
        #: What wakes the threads that sleep; the last one went to sleep last.
        self._asleep: list[threading.Lock] = []
        self._ended: deque[tuple[Tell, Any, BaseException | None]] = deque()
        self._is_telling = False
        #: A mean of late. It is long until calls have shown that they are short.
        self._call_s = 10 * SHORT_S
        self._watch: asyncio.TimerHandle | None = None

    @property
    def count(self) -> int:
        """How many have been started."""
        return self._count

    def submit(self, function: Callable[[Any], Any], argument: Any, tell: Tell) -> None:
        """Call `function(argument)` in a thread, then `tell` on this event loop."""
        loop = asyncio.get_running_loop()
        self._work.append((function, argument, tell))
        if self._call_s > SHORT_S or len(self._asleep) == self._count:
            self._wake(loop)
        elif self._watch is None:   # a thread that is awake takes it, or `_look` wakes another
            self._watch = loop.call_later(LOOK_S, self._look, loop, None, 0)

    def _look(self, loop: asyncio.AbstractEventLoop, seen: object, times: int) -> None:
        """Wake more threads if those that are awake are busy with long calls."""
        try:
            oldest = self._work[0]
        except IndexError:
            self._watch = None
            return
        times = times + 1 if oldest is seen else 0
        if times:
            self._call_s = max(self._call_s, 2 * SHORT_S)
            for _ in range(min(times, len(self._work))):
                self._wake(loop)
        self._watch = loop.call_later(LOOK_S, self._look, loop, oldest, times)

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake the thread that has slept the least; start one if none sleeps and one may be."""
        try:
            self._asleep.pop().release()
        except IndexError:
            if self._count < self._count_max:
                self._count += 1
                threading.Thread(
                    target=self._serve, args=(loop,), name=f"run-{self._count}", daemon=True
                ).start()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        wake = threading.Lock()
        wake.acquire()
        while True:
            while self._work:
                self._call_next(loop)
            self._asleep.append(wake)
            # `submit` adds work before it looks who sleeps, and here it is the other way round:
            # so one of both sees the other, and no work is left to a thread that sleeps.
            if self._work:
                try:
                    self._asleep.remove(wake)
                    continue
                except ValueError:   # it is being woken
                    pass
            wake.acquire()

    def _call_next(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            function, argument, tell = self._work.popleft()
        except IndexError:   # another thread was faster
            return
        began_s = self._clock()
        result, raised = None, None
        try:
            result = function(argument)
        except BaseException as error:   # it is the caller's to tell
            raised = error
        self._call_s += (self._clock() - began_s - self._call_s) * _WEIGHT
        self._ended.append((tell, result, raised))
        if not self._is_telling:   # else the loop has been woken, and finds this one too
            self._is_telling = True
            with suppress(RuntimeError):   # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._is_telling = False   # first: what ends from here on wakes the loop again
        while self._ended:
            tell, result, raised = self._ended.popleft()
            tell(result, raised)
