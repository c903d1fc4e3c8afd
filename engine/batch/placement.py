"""What a worker asks the cluster for, and why it has no place yet: pure, without Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: A worker that has no place after so long waits for resources, not for its process to start.
WAITING_AFTER_S = 5.0

#: After so long a worker that the cluster has room for in all has none on any one node.
SCATTERED_AFTER_S = 30.0


@dataclass(frozen=True)
class WorkerResources:
    """What one worker asks Ray for.

    Attributes:
        num_cpus: Logical CPUs; fractions let workers share.
        num_gpus: GPUs; fractions let workers share one.
        custom: Ray's other resources by name; `memory` is in bytes.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    custom: tuple[tuple[str, float], ...] = ()

    @property
    def wanted(self) -> dict[str, float]:
        """What a worker asks for, by Ray's names."""
        amounts = {"CPU": self.num_cpus, "GPU": self.num_gpus, **dict(self.custom)}
        return {name: amount for name, amount in amounts.items() if amount > 0}


def waiting_reason(
    resources: WorkerResources, *, waiting: int, waited_s: float, free: Mapping[str, float],
    nodes: Iterable[Mapping[str, float]],
) -> str | None:
    """Return in plain words what workers without a place wait for, or None if they just start.

    Args:
        resources: What each asks for.
        waiting: How many have no place.
        waited_s: How long the first of them has waited.
        free: What the cluster has left, in all.
        nodes: What each node has, used or not.
    """
    if not waiting or waited_s < WAITING_AFTER_S:
        return None
    wanted = resources.wanted
    lacking = [
        f"{_amount(name, need * waiting)}, {_number(name, free.get(name, 0))} available"
        for name, need in wanted.items() if need > free.get(name, 0)
    ]
    totals = list(nodes)
    each = " and ".join(_amount(name, need) for name, need in wanted.items())
    if not any(all(node.get(name, 0) >= need for name, need in wanted.items()) for node in totals):
        most = " and ".join(
            _amount(name, max((node.get(name, 0) for node in totals), default=0)) for name in wanted
        )
        what = " and ".join(lacking) or f"{waiting} workers of {each}"
        return (
            f"waiting for {what}, {waited_s:.0f} s; no node that is up could ever hold a "
            f"worker ({each}): the most on a node is {most}"
        )
    if lacking:
        return f"waiting for {' and '.join(lacking)}, {waited_s:.0f} s"
    if waited_s < SCATTERED_AFTER_S:
        return None
    return (
        f"waiting for a node with {each} free, {waited_s:.0f} s; what is free lies on several nodes"
    )


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{_number(name, amount)} of memory"
    plural = "s" if name in ("CPU", "GPU") and amount != 1 else ""
    return f"{_number(name, amount)} {name}{plural}"


def _number(name: str, amount: float) -> str:
    return f"{amount / 2**30:.3g} GiB" if name == "memory" else f"{round(amount, 4):g}"
