"""How much work a lease holds: so much time's worth, as the speed so far tells."""

from __future__ import annotations

from inferay.engine.batch.messages import Receipt
from inferay.engine.batch.slots import LEASES_PER_WORKER

#: Work in one lease: enough that a lease's own cost (about 0.5 ms in the driver) vanishes.
LEASE_S_MIN = 0.2
LEASE_S_PER_WORKER = 0.001

#: The same where files are fetched: a worker looks no further ahead than its leases reach.
LEASE_S_FETCHING = 1.0

#: The first lease, of unknown speed: its budget of time bounds it too.
LEASE_MINI_BATCHES_FIRST = 32

#: Near the end a lease still holds so much work, for its receipt has to be made durable.
LEASE_S_TAIL = 0.02

#: A lease grows at most so much from one to the next: a speed measured on few is not trusted.
LEASE_GROWTH_MAX = 8

#: Mini-batches in one lease at most: a lost worker loses no more than these.
LEASE_MINI_BATCHES_MAX = 5_000

#: A worker gives back what it has not begun after this many times the intended work.
LEASE_BUDGET = 2.0


class LeaseSizes:
    """Sizes leases for so many workers, in mini-batches, by the speed that receipts show."""

    def __init__(self, workers: int, *, is_fetching: bool = False) -> None:
        self._workers = workers
        self._cost_s = 0.0
        least_s = LEASE_S_FETCHING if is_fetching else LEASE_S_MIN
        self._lease_s = max(least_s, workers * LEASE_S_PER_WORKER)

    @property
    def budget_s(self) -> float:
        """After so long a worker gives back what it has not begun."""
        return self._lease_s * LEASE_BUDGET

    def allowed(self, waiting: int) -> int:
        """Return how many leases a worker may hold while so many mini-batches wait."""
        near_end = waiting < 2 * self._workers * LEASES_PER_WORKER
        return 1 if near_end else LEASES_PER_WORKER

    def next(self, waiting: int, last: int) -> int:
        """Return the size of a worker's next lease.

        Args:
            waiting: Mini-batches that nobody has tried.
            last: Size of the worker's last lease; 0: it had none.
        """
        guided = waiting // (2 * self._workers)
        if self._cost_s == 0 or last == 0:
            return max(1, min(guided, LEASE_MINI_BATCHES_FIRST))
        guided = max(guided, int(LEASE_S_TAIL / self._cost_s))
        by_time = int(self._lease_s / self._cost_s)
        return max(1, min(guided, by_time, last * LEASE_GROWTH_MAX, LEASE_MINI_BATCHES_MAX))

    def measure(self, receipt: Receipt) -> None:
        """Take in how long a lease took."""
        scored = len(receipt.failed) + sum(d.range.stop - d.range.first for d in receipt.done)
        if scored:
            cost_s = max(receipt.wall_s / scored, 1e-7)
            self._cost_s = cost_s if self._cost_s == 0 else (self._cost_s + cost_s) / 2
