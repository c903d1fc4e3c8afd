"""What waits to be scored: ranges that nobody has tried, and retries, which come first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from inferay.engine.batch.messages import Lease
from inferay.engine.batch.units import Range


class Backlog:
    """Ranges of mini-batches in the order of the input, and single ones with their attempt.

    Attributes:
        size: Mini-batches that nobody has tried.
        retries: Mini-batches, or parts of one, each with the number of its next attempt.
    """

    def __init__(self) -> None:
        self.size = 0
        self.retries: deque[tuple[Range, int]] = deque()
        self._untried: deque[Range] = deque()

    def __len__(self) -> int:
        return self.size + len(self.retries)

    def add(self, work: Range) -> None:
        """Queue a range behind all others."""
        self._untried.append(work)
        self.size += work.stop - work.first

    def put_back(self, work: Range) -> None:
        """Queue a range before all others."""
        self._untried.appendleft(work)
        self.size += work.stop - work.first

    def requeue(self, lease: Lease) -> None:
        """Queue what a lease holds before all others, as the attempt that it was."""
        if lease.attempt > 1 or lease.range.is_part:
            self.retries.appendleft((lease.range, lease.attempt))
        else:
            self.put_back(lease.range)

    def take(self, size: int) -> Range:
        """Return the first range, or as much of it as `size` mini-batches."""
        head = self._untried.popleft()
        taken = Range(head.first, min(head.stop, head.first + size))
        if taken.stop < head.stop:
            self._untried.appendleft(Range(taken.stop, head.stop))
        self.size -= taken.stop - taken.first
        return taken

    def take_one_of(
        self, indexes: Collection[int], may_take: Callable[[Range], bool]
    ) -> tuple[Range, int] | None:
        """Return one of these mini-batches and its attempt, a retry first, if one waits."""
        for at, (one, attempt) in enumerate(self.retries):
            if one.first in indexes and may_take(one):
                del self.retries[at]
                return one, attempt
        for at, waiting in enumerate(self._untried):
            for index in indexes:
                if waiting.first <= index < waiting.stop:
                    del self._untried[at]
                    for rest in (Range(index + 1, waiting.stop), Range(waiting.first, index)):
                        if rest.first < rest.stop:
                            self._untried.insert(at, rest)
                    self.size -= 1
                    return Range(index, index + 1), 1
        return None
