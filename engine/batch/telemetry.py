"""What the driver knows of its workers, for people: who scores what since when, where time goes.

Pure: it is told what happened and when. Sums are of this epoch, in seconds of workers. What it
tells is bounded, however many workers a job has: all of them in sums, a few by name.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import Any

from inferay.engine.batch.messages import Failure, Receipt, WorkerSeen
from inferay.engine.batch.slots import Slots

#: Workers told one by one: all of a job with few, else those that are longest at their lease.
WORKERS_SHOWN_MAX = 32

#: Slowest mini-batches that are told.
SLOWEST_SHOWN = 5

#: How often workers that are shown are asked what they have in hand and how much memory they use:
#: a call to an actor costs the driver half a millisecond, so all of it half a percent.
LOOK_S = 3.0


@dataclass
class _Seen:
    """What is known of one slot, beside its state.

    Attributes:
        node: Where it is or was.
        starts: How often it was started.
        mini_batches: What it answered for, failed ones included.
        since_s: When it began its oldest lease.
        in_hand: The mini-batch that it scored when it was last looked at, if it still may.
        in_hand_since_s: When it began that one.
        memory_bytes: What it used then.
    """

    node: str | None = None
    starts: int = 0
    mini_batches: int = 0
    since_s: float = 0.0
    in_hand: int | None = None
    in_hand_since_s: float = 0.0
    memory_bytes: int | None = None


class Telemetry:
    """The workers of one epoch as people want to see them."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._seen: dict[int, _Seen] = {}
        self._deaths: Counter[str] = Counter()
        self._slowest: list[tuple[float, int, int]] = []   # a heap: seconds, mini-batch, slot
        self._asked: set[int] = set()
        self._asked_s = 0.0
        self._advanced_s: float | None = None
        self._starting_s = self._waiting_s = self._idle_s = 0.0
        self._run_s = self._fetch_s = self._overhead_s = 0.0

    # -- what happened

    def advance(self, now_s: float) -> None:
        """Add the time since the last call to the states that the workers were in."""
        passed_s = 0.0 if self._advanced_s is None else now_s - self._advanced_s
        self._advanced_s = now_s
        count = self._slots.count
        self._waiting_s += count("waiting") * passed_s
        self._starting_s += count("starting") * passed_s
        self._idle_s += count("idle") * passed_s

    def started(self, slot: int) -> None:
        """A worker was asked for."""
        self._seen.setdefault(slot, _Seen()).starts += 1

    def placed(self, slot: int, node: str) -> None:
        """A worker has got a place."""
        self._seen[slot].node = node

    def leased(self, slot: int, now_s: float) -> None:
        """A worker was given a lease; it is in the worker's hands already."""
        if len(self._slots.workers[slot].leases) == 1:
            self._seen[slot].since_s = now_s

    def answered(self, slot: int, receipt: Receipt, now_s: float) -> None:
        """A worker has answered a lease, which is in its hands still."""
        leases = self._slots.workers[slot].leases
        lease = next((held.range for held in leases if held.id == receipt.lease_id), None)
        if lease is None:   # of a worker that was given up
            return
        seen = self._seen[slot]
        seen.since_s = now_s
        if seen.in_hand is not None and lease.first <= seen.in_hand < lease.stop:
            seen.in_hand = None
        seen.mini_batches += (receipt.rest.first if receipt.rest else lease.stop) - lease.first
        self._run_s += receipt.run_s
        self._fetch_s += receipt.fetch_s
        self._overhead_s += max(0.0, receipt.wall_s - receipt.run_s - receipt.fetch_s)
        if receipt.slowest is not None:
            self._note_slow(*receipt.slowest, slot)

    def died(self, slot: int, failure: Failure) -> None:
        """A worker ended unasked, or did not come up; it counts as alive still."""
        if self._slots.workers[slot].state in ("stopped", "lost"):   # it was just given back
            return
        self._deaths[failure.kind] += 1
        self.left(slot)

    def left(self, slot: int) -> None:
        """A worker is gone."""
        seen = self._seen[slot]
        seen.in_hand = seen.memory_bytes = None
        self._asked.discard(slot)

    def seen(self, event: WorkerSeen, now_s: float) -> None:
        """A worker was looked at."""
        self._asked.discard(event.slot)
        seen, worker = self._seen[event.slot], self._slots.workers[event.slot]
        if worker.state != "ready":
            return
        seen.memory_bytes = event.memory_bytes
        held = [lease.range for lease in worker.leases]
        is_held = event.in_hand is not None and any(
            one.first <= event.in_hand < one.stop for one in held
        )
        seen.in_hand = event.in_hand if is_held else None
        seen.in_hand_since_s = now_s - event.in_hand_s

    # -- what people ask

    def to_look_at(self, now_s: float) -> list[int]:
        """Return the workers to look at now, at most every `LOOK_S`, and none twice at a time."""
        if now_s - self._asked_s < LOOK_S:
            return []
        self._asked_s = now_s
        chosen = [
            slot for slot in self._shown()
            if self._slots.workers[slot].state == "ready" and slot not in self._asked
        ]
        self._asked.update(chosen)
        return chosen

    def facts(self, now_s: float) -> dict[str, Any]:
        """Return all of it as JSON can carry it."""
        count = self._slots.count
        return {
            "workers_by_state": {
                "waiting": count("waiting"), "starting": count("starting"), "idle": count("idle"),
                "scoring": count("busy"), "stopped": count("stopped", "lost"),
            },
            "workers": [self._worker(slot, now_s) for slot in self._shown()],
            "slowest": [
                {"mini_batch": index, "seconds": round(seconds, 3), "slot": slot,
                 "node": self._seen[slot].node}
                for seconds, index, slot in sorted(self._slowest, reverse=True)
            ],
            "deaths_by_kind": [
                {"kind": kind, "count": number} for kind, number in self._deaths.most_common()
            ],
            "worker_seconds": {
                "scoring": round(self._run_s, 3), "fetching": round(self._fetch_s, 3),
                "overhead": round(self._overhead_s, 3), "idle": round(self._idle_s, 3),
                "starting": round(self._starting_s, 3), "waiting": round(self._waiting_s, 3),
            },
        }

    # -- inside

    def _note_slow(self, index: int, seconds: float, slot: int) -> None:
        slowest = self._slowest
        if len(slowest) == SLOWEST_SHOWN and seconds <= slowest[0][0]:
            return
        for known in slowest:
            if known[1] == index:   # scored again: told once, at its slowest
                if seconds > known[0]:
                    slowest.remove(known)
                    slowest.append((seconds, index, slot))
                    heapq.heapify(slowest)
                return
        heapq.heappush(slowest, (seconds, index, slot))
        if len(slowest) > SLOWEST_SHOWN:
            heapq.heappop(slowest)

    def _shown(self) -> list[int]:
        if len(self._seen) <= WORKERS_SHOWN_MAX:
            return sorted(self._seen)
        busy = heapq.nsmallest(
            WORKERS_SHOWN_MAX, self._slots.slots("busy"), key=lambda slot: self._seen[slot].since_s
        )
        return sorted(busy)

    def _worker(self, slot: int, now_s: float) -> dict[str, Any]:
        seen, worker = self._seen[slot], self._slots.workers[slot]
        lease = worker.leases[0].range if worker.leases else None
        state = worker.state
        if state == "ready":
            state = "idle" if lease is None else "scoring"
        in_hand = seen.in_hand
        return {
            "slot": slot, "node": seen.node, "state": state,
            "lease": lease and lease.to_json(),
            "lease_seconds": round(now_s - seen.since_s, 1) if lease else None,
            "in_hand": in_hand,
            "in_hand_seconds":
                None if in_hand is None else round(now_s - seen.in_hand_since_s, 1),
            "mini_batches_done": seen.mini_batches, "restarts": max(0, seen.starts - 1),
            "memory_bytes": seen.memory_bytes,
        }
