from __future__ import annotations

import pytest

from inferay.serve.liveness import Liveness
from inferay.serve.replica_spec import Probe


def looks_until_it_fails(liveness: Liveness, most: int = 50) -> int | None:
    for number in range(1, most + 1):
        try:
            liveness.check()
        except RuntimeError:
            return number
    return None


@pytest.mark.parametrize(("threshold", "looks"), [(30, 28), (5, 3), (3, 1), (1, 1)])
def test_it_fails_when_serves_own_three_failures_make_up_the_probes_number(
    threshold: int, looks: int
) -> None:
    probe = Probe(initial_delay_s=0, failure_threshold=threshold)
    assert looks_until_it_fails(Liveness(probe, lambda: True)) == looks


def test_a_look_at_which_it_works_begins_the_count_anew() -> None:
    is_stuck = True
    liveness = Liveness(Probe(initial_delay_s=0, failure_threshold=6), lambda: is_stuck)
    for _ in range(3):
        liveness.check()
    is_stuck = False
    liveness.check()
    is_stuck = True
    assert looks_until_it_fails(liveness) == 4


def test_nothing_counts_before_the_initial_delay() -> None:
    now_s = 0.0
    liveness = Liveness(
        Probe(initial_delay_s=20, failure_threshold=3), lambda: True, clock=lambda: now_s
    )
    assert looks_until_it_fails(liveness) is None
    now_s = 20.0
    assert looks_until_it_fails(liveness) == 1
