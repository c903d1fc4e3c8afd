from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.serve.mirror.intervals import (
    Moments,
    median_interval,
    paired_difference,
    quantile,
    student,
    wilson,
)

TRIALS = 1000


@pytest.mark.parametrize(("freedom", "factor"), [
    (1, 12.706), (2, 4.303), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962),
])
def test_students_factor_is_that_of_the_tables(freedom: int, factor: float) -> None:
    assert student(freedom) == pytest.approx(factor, abs=1e-3)


@pytest.mark.parametrize(("count", "of", "low", "high"), [
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718), (29, 29, 0.8830, 1.0),
])
def test_the_interval_of_a_share_is_wilsons(count: int, of: int, low: float, high: float) -> None:
    """The examples of Newcombe, Statistics in Medicine 17 (1998), 857-872."""
    found = wilson(count, of)
    assert found is not None
    assert [found.low, found.high] == pytest.approx([low, high], abs=5e-5)


@pytest.mark.parametrize(("cells", "low", "high"), [
    ((36, 12, 2, 0), 0.0569, 0.3404), ((14, 5, 0, 22), 0.0115, 0.2265),
])
def test_the_interval_of_a_difference_is_newcombes(
    cells: tuple[int, int, int, int], low: float, high: float
) -> None:
    """Examples of Newcombe, Statistics in Medicine 17 (1998), 2635-2650, of the first's less."""
    found = paired_difference(*cells)
    assert found is not None
    assert [-found.high, -found.low] == pytest.approx([low, high], abs=5e-5)


@given(cells=st.tuples(*[st.integers(0, 2000)] * 4).filter(any))
def test_a_difference_lies_in_its_interval(cells: tuple[int, int, int, int]) -> None:
    found = paired_difference(*cells)
    assert found is not None
    difference = (cells[2] - cells[1]) / sum(cells)
    assert -1 - 1e-9 <= found.low <= difference + 1e-9
    assert difference - 1e-9 <= found.high <= 1 + 1e-9


def test_there_is_no_interval_of_nothing() -> None:
    assert wilson(0, 0) is None
    assert paired_difference(0, 0, 0, 0) is None
    assert Moments().interval is None
    assert median_interval([1.0] * 5) is None


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
def test_moments_are_mean_and_deviation(values: list[float]) -> None:
    found = Moments()
    for each in values:
        found.add(each)
    assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert found.deviation == pytest.approx(statistics.stdev(values), abs=1e-5)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
def test_quantiles_are_those_of_the_standard_library(values: list[float]) -> None:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    ordered = sorted(values)
    for share in (0.5, 0.95, 0.99):
        assert quantile(ordered, share) == pytest.approx(cuts[round(share * 100) - 1], abs=1e-6)


@pytest.mark.parametrize("count", [6, 7, 8, 21, 25, 200])
def test_the_interval_of_a_median_has_it_as_often_as_it_says(count: int) -> None:
    chance = random.Random(count)
    hits = 0
    for _ in range(TRIALS):
        found = median_interval(sorted(chance.expovariate(1.0) for _ in range(count)))
        assert found is not None
        hits += found.low <= 0.6931 <= found.high
    assert hits / TRIALS >= 0.935


@pytest.mark.parametrize("count", [3, 10, 100])
def test_the_interval_of_a_mean_has_it_as_often_as_it_says(count: int) -> None:
    chance = random.Random(count)
    hits = 0
    for _ in range(TRIALS):
        found = Moments()
        for _ in range(count):
            found.add(chance.gauss(5.0, 2.0))
        assert found.interval is not None
        hits += found.interval.low <= 5.0 <= found.interval.high
    assert 0.93 <= hits / TRIALS <= 0.97
