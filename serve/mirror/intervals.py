"""Confidence intervals of 95 %, of what a sample of requests shows. Pure.

Wilson's for a share; Newcombe's (1998, method 10) for the difference of two shares of the same
requests; Student's for a mean; the binomial one of order statistics for a median, which needs no
assumption about the distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Of the normal distribution, for 95 % on both sides.
Z = 1.959963984540054

#: Student's at 1 and 2 degrees of freedom, where the series is no good.
_T_SMALL = (12.706204736, 4.302652730)

#: Below so many values not even the widest interval of order statistics has 95 %.
MEDIAN_MIN = 6


@dataclass(frozen=True)
class Interval:
    """Where a value lies, with 95 % confidence."""

    low: float
    high: float


class Moments:
    """Mean and spread of numbers that come one by one (Welford)."""

    __slots__ = ("_squares", "count", "mean")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """Take a finite number."""
        self.count += 1
        distance = value - self.mean
        self.mean += distance / self.count
        self._squares += distance * (value - self.mean)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the population that they are a sample of."""
        if self.count < 2:
            return None
        return math.sqrt(max(0.0, self._squares / (self.count - 1)))

    @property
    def interval(self) -> Interval | None:
        """Of the mean; None for fewer than two numbers."""
        deviation = self.deviation
        if deviation is None:
            return None
        half = student(self.count - 1) * deviation / math.sqrt(self.count)
        return Interval(self.mean - half, self.mean + half)


def wilson(count: int, of: int) -> Interval | None:
    """Return the interval of a share; None of nothing."""
    if of == 0:
        return None
    share = count / of
    middle = share + Z * Z / (2 * of)
    half = Z * math.sqrt(share * (1 - share) / of + Z * Z / (4 * of * of))
    scale = 1 + Z * Z / of
    low = 0.0 if count == 0 else (middle - half) / scale
    return Interval(low, 1.0 if count == of else (middle + half) / scale)


def paired_difference(both: int, first: int, second: int, neither: int) -> Interval | None:
    """Return the interval of the second's share less the first's.

    Args:
        both: Requests that count for both.
        first: Those that count for the first only.
        second: Those that count for the second only.
        neither: Those that count for none.
    """
    total = both + first + second + neither
    left, right = wilson(both + first, total), wilson(both + second, total)
    if left is None or right is None:
        return None
    p, q = (both + first) / total, (both + second) / total
    phi = _correlation(both, first, second, neither)
    down = _distance(q - right.low, left.high - p, phi)
    up = _distance(right.high - q, p - left.low, phi)
    return Interval(q - p - down, q - p + up)


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if margins == 0:
        return 0.0
    excess: float = both * neither - first * second
    if excess > 0:
        excess = max(excess - (both + first + second + neither) / 2, 0)
    return excess / math.sqrt(margins)


def _distance(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def student(freedom: int) -> float:
    """Return Student's factor for 95 % on both sides (to 0.1 % from 4 degrees of freedom)."""
    if freedom <= len(_T_SMALL):
        return _T_SMALL[freedom - 1]
    z, n = Z, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )


def median_interval(ordered: Sequence[float]) -> Interval | None:
    """Return the interval of the median; None for too few values."""
    count = len(ordered)
    if count < MEDIAN_MIN:
        return None
    low = max(0, math.floor((count - 1 - Z * math.sqrt(count)) / 2))
    return Interval(ordered[low], ordered[count - 1 - low])


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value that so large a share of them does not exceed (linear between two)."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
