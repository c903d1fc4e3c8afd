"""How many replicas a deployment has, by how busy they are.

The rules are pure. `Policy` is what Serve's controller calls with what the replicas reported; it
must not block. A further rule (a metric, a schedule) is a function beside `wanted_by_utilisation`,
and the greatest wish wins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

#: What replicas report, and the policy reads: the mean number of requests in flight.
IN_FLIGHT = "inferay_in_flight"

#: Replicas are taken away only if the rest would be no busier than this share of the target: a
#: load near a boundary then changes nothing.
SLACK = 0.9

#: Looks that a mean is taken over.
LOOKS = 3

#: Looks that must agree before a replica is taken away: starting one again costs more than it.
LOOKS_BEFORE_SCALE_IN = 30

#: However rarely is looked, so long a load has to be low at most.
SCALE_IN_S_MAX = 300.0

#: Of a float: 2.1 / 0.7 is 3.0000000000000004.
_EPSILON = 1e-9


def wanted_by_utilisation(
    in_flight: Sequence[float], *, target: float, current: int, replicas_min: int,
    replicas_max: int,
) -> int:
    """Return how many replicas the load wants.

    Up at once to what the load takes; down by half at most, and only if every replica has
    reported: one that is silent may be the busy one.

    Args:
        in_flight: Mean requests in flight of each replica that has reported.
        target: Of them on one replica.
        current: Replicas that there are or shall be.
        replicas_min: The fewest, whatever the load.
        replicas_max: The most, whatever the load.
    """
    load = sum(in_flight) / target
    wanted = current
    if load > current + _EPSILON:
        wanted = math.ceil(load - _EPSILON)
    elif len(in_flight) >= current:
        fewer = max(math.ceil(load / SLACK - _EPSILON), math.ceil(current / 2))
        wanted = min(current, fewer)
    return max(replicas_min, min(replicas_max, wanted))


class Policy:
    """The deployment's rule, as Serve's `AutoscalingPolicy` calls it.

    It has no arguments of its own: Serve replaces every replica if a policy's arguments change,
    but not if the numbers beside it do, so the target is Serve's `target_ongoing_requests`.
    """

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return how many replicas there shall be, and no state."""
        reported = (context.aggregated_metrics or {}).get(IN_FLIGHT, {})
        wanted = wanted_by_utilisation(
            list(reported.values()), target=context.config.target_ongoing_requests,
            current=context.target_num_replicas,
            replicas_min=context.capacity_adjusted_min_replicas,
            replicas_max=context.capacity_adjusted_max_replicas,
        )
        return wanted, {}


def autoscaling_config(
    *, replicas_min: int, replicas_max: int, initial: int, target: float, polling_s: float
) -> dict[str, Any]:
    """Return Serve's `autoscaling_config`, as JSON can carry it.

    Args:
        replicas_min: The fewest, whatever the load.
        replicas_max: The most, whatever the load.
        initial: The first number of replicas; a new revision starts with what the old one has.
        target: Requests in flight on one replica.
        polling_s: Between two looks.
    """
    return {
        "min_replicas": replicas_min, "max_replicas": replicas_max,
        "initial_replicas": max(replicas_min, min(replicas_max, initial)),
        "target_ongoing_requests": target, "metrics_interval_s": polling_s,
        "look_back_period_s": LOOKS * polling_s, "upscale_delay_s": polling_s,
        "downscale_delay_s": max(
            polling_s, min(LOOKS_BEFORE_SCALE_IN * polling_s, SCALE_IN_S_MAX)
        ),
        "policy": {"policy_function": f"{__name__}:Policy"},
    }
