"""How busy a replica is: counted where its requests come in, read from other threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic


@dataclass
class Count:
    """Requests of one kind."""

    in_flight: int = 0
    total: int = 0


class Meter:
    """Counts live requests and copies; only the event loop's thread calls `enter` and `leave`.

    Args:
        clock: Seconds, never backwards.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.live = Count()
        self.shadow = Count()
        self._clock = clock
        self._at_s = self._read_at_s = clock()
        self._area_s = self._read_area_s = 0.0   # requests in flight, times seconds

    @property
    def in_flight(self) -> int:
        """Requests that have come and are not answered, copies included."""
        return self.live.in_flight + self.shadow.in_flight

    def enter(self, count: Count) -> None:
        """Begin a request."""
        self._advance()
        count.in_flight += 1
        count.total += 1

    def leave(self, count: Count) -> None:
        """End a request."""
        self._advance()
        count.in_flight -= 1

    def mean_in_flight(self) -> float:
        """Return how many were in flight on average since this was last asked.

        A look at one moment says little of short requests.
        """
        now_s = self._clock()
        area_s = self._area_s + self.in_flight * (now_s - self._at_s)
        passed_s = now_s - self._read_at_s
        mean = (area_s - self._read_area_s) / passed_s if passed_s > 0 else float(self.in_flight)
        self._read_at_s, self._read_area_s = now_s, area_s
        return max(0.0, mean)

    def counters(self) -> dict[str, int]:
        """Return the counts, as the edge's state tells them."""
        return {
            "live_in_flight": self.live.in_flight, "live_total": self.live.total,
            "shadow_in_flight": self.shadow.in_flight, "shadow_total": self.shadow.total,
        }

    def _advance(self) -> None:
        now_s = self._clock()
        self._area_s += self.in_flight * (now_s - self._at_s)
        self._at_s = now_s
