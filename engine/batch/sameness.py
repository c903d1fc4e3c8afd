"""Whether a job fails in the same way wherever it is tried, so that it can stop early.

Probes are mini-batches spread evenly over the input, for its first items may be the only bad ones.
While nothing has succeeded, they are tried before all others, with all their attempts, down to a
single item. When enough of those items have failed with one cause, the job has no future: if one
item in ten were good, 30 would all be bad in 4 of 100 jobs, if one in five, in 1 of 1,000. A
failure that costs a process or a time-out is believed sooner. One success ends the matter.
"""

from __future__ import annotations

import re

from inferay.engine.batch.messages import Failure

#: Probes, and so single items that have to fail with one cause.
PROBES = 30

#: As many for failures that end a process: 10 hangs of mini-batches of 10 items, with 3 retries,
#: take 80 time-outs, which the workers share.
PROBES_AFTER_DEATH = 10

#: Kinds of failure that leave a worker alive; each costs about a millisecond.
_CHEAP_KINDS = ("Exception", "Rows")

_FRAME = re.compile(r'^ *File "(.+)", line (\d+)', re.MULTILINE)

Cause = tuple[str, ...]


class Sameness:
    """What is known of the probes; counts nothing more once an item has succeeded.

    Attributes:
        tried: Single items that have failed.
        probes: Mini-batches still without a verdict, in the order to try them; empty when the
            matter is decided.
        is_suspected: Whether something has failed and nothing succeeded: probes come first.
    """

    def __init__(self, mini_batches: int) -> None:
        count = min(PROBES, mini_batches)
        # Bit-reversed, so that the first few are spread over the input too.
        order = sorted(range(count), key=lambda number: f"{number:05b}"[::-1])
        self.probes = {number * mini_batches // count: None for number in order}
        if count < PROBES_AFTER_DEATH:
            self.probes.clear()
        self.is_suspected = False
        self.tried = 0
        self._cause: Cause | None = None
        self._slots: set[int] = set()

    def on_success(self) -> None:
        """A call of `run()` has succeeded."""
        self.probes.clear()
        self.is_suspected = False

    def on_failure(
        self, slot: int, mini_batch: int, failure: Failure, *, is_final: bool, ready: int
    ) -> bool:
        """An attempt has failed; return whether the job fails in the same way everywhere.

        Args:
            slot: Which worker tried.
            mini_batch: Which mini-batch, or a part of which.
            failure: How it failed.
            is_final: Whether it was a single item, for good.
            ready: Workers that are up: two have to have failed, if there are two.
        """
        if not self.probes:
            return False
        self.is_suspected = True
        cause = cause_of(failure)
        self._cause = self._cause or cause
        if cause == self._cause:
            self._slots.add(slot)
        elif mini_batch in self.probes:
            self.on_success()   # at least not in the same way
            return False
        if is_final and mini_batch in self.probes:
            del self.probes[mini_batch]
            self.tried += 1
        needed = PROBES if failure.kind in _CHEAP_KINDS else PROBES_AFTER_DEATH
        is_same = self.tried >= needed and len(self._slots) >= min(2, ready)
        if not self.probes and not is_same:
            self.on_success()
        return is_same


def cause_of(failure: Failure) -> Cause:
    """Return what two failures of the same cause share: kind, exception class, the user's line."""
    if failure.kind != "Exception":
        return (failure.kind,)
    frames: list[tuple[str, str]] = _FRAME.findall(failure.traceback)
    own = [frame for frame in frames if not frame[0].startswith("/")]   # not a library's
    last = (own or frames or [("", "")])[-1]
    return ("Exception", failure.exception.partition(":")[0], *last)
