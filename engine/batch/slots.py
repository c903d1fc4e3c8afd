"""The workers of a dispatcher, by slot: which to start, which to give back, which has room.

It knows no work but how much of it may still come. What a turn of the driver's loop costs here
depends on what happened since the last one, not on the number of slots: a job may have thousands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from inferay.engine.batch.messages import Lease

#: Leases that a worker holds: one in hand, one whose files are fetched meanwhile, and one that is
#: on its way while the first ends; so that it is never idle.
LEASES_PER_WORKER = 3

#: Workers asked for in one turn of the driver's loop: an actor costs it about a millisecond, and
#: those that are up must not wait for a thousand others to be asked for.
STARTS_PER_TURN = 32

#: Idle workers beyond what is needed: a retry then need not wait for a start.
SPARES = 1

#: Workers are given back when they were too many for so long: a tail that ends sooner is not worth
#: their `shutdown()` beside the last mini-batches.
RELEASE_AFTER_S = 1.0

#: What is given back first: a worker that waits for its place, one that loads, one that is idle.
_RELEASE_ORDER = ("waiting", "starting", "idle")

#: States that stand for several of those by which slots are sorted.
_PARTS = {
    "ready": ("idle", "room", "full"), "busy": ("room", "full"), "stopped": ("stopped", "fallen"),
}


@dataclass
class Worker:
    """One slot.

    Attributes:
        leases: What it holds, oldest first.
        last_size: Mini-batches of its last lease.
        start_failures: Failed starts in a row.
        state: `stopped`; `waiting` for a place on a node; `starting` there; `ready`; `lost` for
            good.
        has_standby: Whether a crash of its process would cost no start, as it last said.
    """

    leases: list[Lease] = field(default_factory=list)
    last_size: int = 0
    start_failures: int = 0
    state: str = "stopped"
    has_standby: bool = False


class Slots:
    """All slots of a job, sorted by what can be done with each.

    Attributes:
        workers: By slot.
        leased: Mini-batches in leases, without those that their worker is seen to have behind it.
    """

    def __init__(self, count: int) -> None:
        self.workers = {slot: Worker() for slot in range(count)}
        # Slots by state, in the order of their arrival. A worker that is ready is `idle`, has
        # `room` for a lease, or is `full`; a stopped one that still has its place is `fallen`.
        self._in: dict[str, dict[int, None]] = {state: {} for state in (
            "stopped", "fallen", "waiting", "starting", "idle", "room", "full", "lost",
        )}
        self._in["stopped"] = dict.fromkeys(self.workers)
        self._where = dict.fromkeys(self.workers, "stopped")
        self._to_release: dict[int, None] = {}
        self.leased = 0
        self._passed: dict[int, int] = {}   # by lease: mini-batches that its worker has behind it
        self._too_many_since_s: float | None = None

    def count(self, *states: str) -> int:
        """Return how many slots are in these states: those of `Worker.state`, `idle` or `busy`."""
        return sum(
            len(self._in[part]) for state in states for part in _PARTS.get(state, (state,))
        )

    def slots(self, state: str) -> Iterator[int]:
        """Yield the slots in this state; see `count`."""
        for part in _PARTS.get(state, (state,)):
            yield from self._in[part]

    # -- which to start and which to give back

    def take_over(self, started: int) -> None:
        """Note that the first so many workers were asked for before."""
        for slot in range(started):
            self._move(slot, "waiting")

    def to_start(self, needed: int) -> list[int]:
        """Return slots that want a worker now, a few at a time, and count them as waiting.

        One whose worker fell keeps its place on the node, so it comes before those that wait for
        one, or gives the place back.
        """
        started: list[int] = []
        for slot in list(self._in["fallen"]):
            if self.count("starting", "ready") + len(started) < needed:
                started.append(slot)
                self._move(slot, "starting")
            else:
                self._to_release[slot] = None
                self._move(slot, "stopped")
        lacking = needed - self.count("waiting", "starting", "ready")
        for slot in list(islice(self._in["stopped"], max(0, min(lacking, STARTS_PER_TURN)))):
            started.append(slot)
            self._to_release.pop(slot, None)   # it keeps its place after all
            self._move(slot, "waiting")
        return started

    def to_release(self, needed: int, now_s: float) -> list[int]:
        """Return slots whose worker is to be given back, and count them as stopped."""
        released, self._to_release = list(self._to_release), {}
        live = self.count("waiting", "starting", "ready")
        excess = live - needed - SPARES
        if excess <= 0:
            self._too_many_since_s = None
            return released
        if self._too_many_since_s is None:
            self._too_many_since_s = now_s
        if now_s - self._too_many_since_s < RELEASE_AFTER_S:
            return released
        for state in _RELEASE_ORDER:
            for slot in list(islice(self._in[state], max(0, excess))):
                released.append(slot)
                self._move(slot, "stopped")
                excess -= 1
        return released

    def place(self, slot: int) -> None:
        """Note that the worker has a place on a node, and starts there."""
        if self.workers[slot].state == "waiting":
            self._move(slot, "starting")

    def ready(self, slot: int) -> None:
        """Note that the worker takes leases."""
        self.workers[slot].start_failures = 0
        self._move(slot, "ready")

    def fall(self, slot: int, *, has_place: bool) -> list[Lease]:
        """Note that the worker's process is gone; return the leases that it held, oldest first."""
        worker = self.workers[slot]
        leases, worker.leases, worker.last_size = worker.leases, [], 0
        worker.has_standby = False
        for lease in leases:
            self._forget(lease)
        self._move(slot, "fallen" if has_place else "stopped")
        return leases

    def lose(self, slot: int) -> None:
        """Give a slot up for good, and its place back."""
        self._to_release[slot] = None
        self._move(slot, "lost")

    # -- who takes the next lease

    def with_room(self, leases_allowed: int) -> int | None:
        """Return a ready worker that may take a lease, an idle one first.

        Args:
            leases_allowed: 1, or as many as a worker holds at most.
        """
        for state in ("idle", "room")[:leases_allowed]:
            if self._in[state]:
                return next(iter(self._in[state]))
        return None

    def take(self, slot: int, lease: Lease) -> None:
        """Note that the worker holds the lease."""
        self.workers[slot].leases.append(lease)
        self.leased += lease.range.stop - lease.range.first
        self._move(slot, "ready")

    def give_back(self, slot: int, lease_id: int) -> Lease | None:
        """Take a lease out of the worker's hands and return it, if it holds it."""
        leases = self.workers[slot].leases
        for lease in leases:
            if lease.id == lease_id:
                leases.remove(lease)
                self._forget(lease)
                self._move(slot, "ready")
                return lease
        return None

    def see(self, slot: int, in_hand: int) -> None:
        """Note that the worker has this mini-batch in hand: what comes before it is done."""
        for lease in self.workers[slot].leases:
            if lease.holds(in_hand):
                passed = in_hand - lease.range.first
                self.leased -= passed - self._passed.get(lease.id, 0)
                self._passed[lease.id] = passed

    def _forget(self, lease: Lease) -> None:
        self.leased -= lease.range.stop - lease.range.first - self._passed.pop(lease.id, 0)

    def _move(self, slot: int, state: str) -> None:
        worker = self.workers[slot]
        worker.state = "stopped" if state == "fallen" else state
        if state == "ready":
            held = len(worker.leases)
            state = "full" if held >= LEASES_PER_WORKER else "room" if held else "idle"
        del self._in[self._where[slot]][slot]
        self._where[slot] = state
        self._in[state][slot] = None
