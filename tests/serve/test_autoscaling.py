from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.serve.autoscaling import (
    IN_FLIGHT,
    SLACK,
    Policy,
    autoscaling_config,
    wanted_by_utilisation,
)

LOADS = st.lists(st.floats(0, 100), max_size=12)
COUNTS = st.integers(1, 12)
TARGETS = st.floats(0.1, 50)


def wanted(
    load: float, current: int, *, target: float = 7.0, most: int = 10, least: int = 1
) -> int:
    """Ask for replicas that share the load evenly."""
    return wanted_by_utilisation(
        [load / current] * current, target=target, current=current, replicas_min=least,
        replicas_max=most,
    )


@pytest.mark.parametrize(("load", "current", "expected"), [
    (7, 1, 1), (7.1, 1, 2), (21, 1, 3), (21.1, 1, 4), (700, 1, 10),
    (0, 1, 1), (12, 2, 2), (6.4, 2, 2), (6.3, 2, 1), (0, 8, 4), (0, 5, 3),
])
def test_the_target_is_kept_in_flight_on_each_replica(
    load: float, current: int, expected: int
) -> None:
    assert wanted(load, current) == expected


def test_a_load_that_wavers_around_a_boundary_changes_nothing() -> None:
    current = wanted(14.01, 2)
    assert current == 3
    assert {wanted(load / 10, current) for load in range(130, 205)} == {3}


def test_nothing_is_taken_away_while_a_replica_is_silent() -> None:
    assert wanted_by_utilisation(
        [0.0], target=1, current=2, replicas_min=1, replicas_max=4
    ) == 2
    assert wanted_by_utilisation([], target=1, current=2, replicas_min=1, replicas_max=4) == 2


@given(LOADS, TARGETS, COUNTS, COUNTS, COUNTS)
def test_the_number_stays_between_its_bounds(
    loads: list[float], target: float, current: int, one: int, other: int
) -> None:
    least, most = sorted((one, other))
    assert least <= wanted_by_utilisation(
        loads, target=target, current=current, replicas_min=least, replicas_max=most
    ) <= most


@given(st.floats(0, 100), TARGETS, COUNTS)
def test_a_steady_load_comes_to_rest_and_never_turns_back(
    load: float, target: float, current: int
) -> None:
    numbers = [current]
    for _ in range(8):   # halving from 12, and once more
        numbers.append(wanted(load, numbers[-1], target=target, most=12))
    assert numbers[-1] == numbers[-2]
    assert numbers in (sorted(numbers), sorted(numbers, reverse=True))


@given(st.floats(0.1, 80), st.floats(SLACK, 1), COUNTS)
def test_a_load_that_gave_a_replica_keeps_it_while_it_drops_by_less_than_the_slack(
    load: float, share: float, current: int
) -> None:
    up = wanted(load, current, most=100)
    if up > current:
        assert wanted(load * share, up, most=100) == up


@given(st.floats(0, 100), TARGETS, COUNTS)
def test_scaling_in_takes_half_at_most_and_leaves_the_rest_below_the_target(
    load: float, target: float, current: int
) -> None:
    fewer = wanted(load, current, target=target, most=12)
    if fewer < current:
        assert fewer >= current / 2
        assert load / fewer <= target


def test_serves_controller_gets_its_answer_from_what_replicas_reported() -> None:
    context = SimpleNamespace(
        aggregated_metrics={IN_FLIGHT: {"a": 9.0, "b": 9.0}, "running_requests": {"a": 0.0}},
        config=SimpleNamespace(target_ongoing_requests=7.0), target_num_replicas=2,
        capacity_adjusted_min_replicas=1, capacity_adjusted_max_replicas=5,
    )
    assert Policy()(context) == (3, {})
    context.aggregated_metrics = None   # a controller that has just started
    assert Policy()(context) == (2, {})


def test_a_new_revision_starts_with_as_many_as_the_old_one_has() -> None:
    def initial(count: int) -> int:
        found = autoscaling_config(
            replicas_min=2, replicas_max=4, initial=count, target=0.7, polling_s=1.0
        )
        assert found["downscale_delay_s"] > found["upscale_delay_s"]
        return int(found["initial_replicas"])

    assert [initial(1), initial(3), initial(9)] == [2, 3, 4]
