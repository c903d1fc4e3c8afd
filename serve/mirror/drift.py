"""How far the numbers of two deployments' answers lie apart, output by output. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inferay.serve.mirror.compare import Comparison
from inferay.serve.mirror.intervals import Interval, Moments

#: Outputs that are told apart; answers that are keyed by ids would have as many as there are ids.
PATHS_MAX = 100

#: Where the numbers of all further outputs are counted.
OTHERS = "(others)"


@dataclass(frozen=True)
class OutputDrift:
    """One output: a path in the JSON of the answers, where `[*]` is every place of a list.

    The mean difference and the mean distance, with their intervals, are over requests: the numbers
    in one answer depend on each other. The rest is over numbers.

    Attributes:
        pairs: Requests with such a number in both answers.
        values: Numbers.
        non_finite: Numbers left out, as one of both was NaN, infinite or too large.
        mean_difference: Of the shadow's less the live one's.
        mean_distance: Of their absolute difference.
        deviation_of_difference: Standard deviation; likewise of both sides' numbers.
    """

    path: str
    pairs: int
    values: int
    non_finite: int
    mean_difference: float | None
    mean_difference_interval: Interval | None
    mean_distance: float | None
    mean_distance_interval: Interval | None
    max_distance: float | None
    deviation_of_difference: float | None
    live_mean: float | None
    live_deviation: float | None
    shadow_mean: float | None
    shadow_deviation: float | None


class _Output:
    __slots__ = (
        "by_value", "differences", "distances", "live", "max_distance", "non_finite", "pair",
        "shadow",
    )

    def __init__(self) -> None:
        self.differences = Moments()
        self.distances = Moments()
        self.by_value = Moments()
        self.live = Moments()
        self.shadow = Moments()
        self.max_distance = 0.0
        self.non_finite = 0
        self.pair = [0.0, 0.0, 0.0]   # count, differences, distances of the pair in hand

    def add(self, live: float, shadow: float) -> None:
        difference = shadow - live
        if not (math.isfinite(difference) and abs(difference) < 1e150 > abs(live)):
            self.non_finite += 1   # squares of larger ones overflow
            return
        self.by_value.add(difference)
        self.live.add(live)
        self.shadow.add(shadow)
        distance = abs(difference)
        self.max_distance = max(self.max_distance, distance)
        pair = self.pair
        pair[0] += 1
        pair[1] += difference
        pair[2] += distance

    def end_pair(self) -> None:
        count, differences, distances = self.pair
        if count:
            self.differences.add(differences / count)
            self.distances.add(distances / count)
            self.pair = [0.0, 0.0, 0.0]


class Drift:
    """Collects the numbers of comparisons."""

    def __init__(self) -> None:
        self._outputs: dict[str, _Output] = {}

    def add(self, comparison: Comparison) -> None:
        """Take the numbers of one pair."""
        touched: dict[str, _Output] = {}
        for path, live, shadow in comparison.numbers:
            output = touched.get(path)
            if output is None:
                output = touched[path] = self._output(path)
            output.add(live, shadow)
        for output in touched.values():
            output.end_pair()

    def outputs(self) -> list[OutputDrift]:
        """Return what was found, in the order in which outputs were first seen."""
        return [_summary(path, output) for path, output in self._outputs.items()]

    def _output(self, path: str) -> _Output:
        found = self._outputs.get(path)
        if found is not None:
            return found
        if len(self._outputs) < PATHS_MAX:
            found = self._outputs[path] = _Output()
            return found
        return self._outputs.setdefault(OTHERS, _Output())


def _summary(path: str, found: _Output) -> OutputDrift:
    is_empty = found.by_value.count == 0
    return OutputDrift(
        path, found.differences.count, found.by_value.count, found.non_finite,
        None if is_empty else found.differences.mean, found.differences.interval,
        None if is_empty else found.distances.mean, found.distances.interval,
        None if is_empty else found.max_distance, found.by_value.deviation,
        None if is_empty else found.live.mean, found.live.deviation,
        None if is_empty else found.shadow.mean, found.shadow.deviation,
    )
