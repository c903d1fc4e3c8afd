"""When Ray Serve is to replace a replica: pure but for a clock."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from inferay.serve.replica_spec import Probe

#: Health checks in a row that have to fail before Serve replaces a replica.
SERVE_FAILURES = 3


class Liveness:
    """Says when a replica is to be replaced: stuck for as many looks as its probe allows.

    Args:
        probe: Of the deployment.
        is_stuck: Whether every place is held by a call that has exceeded its time.
        clock: Seconds, never backwards.
    """

    def __init__(
        self, probe: Probe, is_stuck: Callable[[], bool], clock: Callable[[], float] = monotonic
    ) -> None:
        self._is_stuck = is_stuck
        self._clock = clock
        self._first_look_s = clock() + probe.initial_delay_s
        self._looks_max = max(1, probe.failure_threshold - SERVE_FAILURES + 1)
        self._stuck_looks = 0

    def check(self) -> None:
        """Look once; Serve looks every `period_s`.

        Raises:
            RuntimeError: It has been stuck for too long.
        """
        is_stuck = self._is_stuck() and self._clock() >= self._first_look_s
        self._stuck_looks = self._stuck_looks + 1 if is_stuck else 0
        if self._stuck_looks >= self._looks_max:
            raise RuntimeError(
                f"every call of run() has exceeded its time, at {self._stuck_looks} looks in a row"
            )
