from __future__ import annotations

from collections.abc import Mapping

import pytest

from inferay.engine.batch.placement import (
    SCATTERED_AFTER_S,
    WAITING_AFTER_S,
    WorkerResources,
    waiting_reason,
)

BIG = {"CPU": 64.0, "GPU": 8.0, "memory": 2.0**38, "fast_disk": 4.0}


def reason(
    resources: WorkerResources, *, waiting: int = 2, waited_s: float = 40.0,
    free: Mapping[str, float], nodes: tuple[Mapping[str, float], ...] = (BIG,),
) -> str | None:
    return waiting_reason(
        resources, waiting=waiting, waited_s=waited_s, free=free, nodes=nodes
    )


@pytest.mark.parametrize(("resources", "free", "said"), [
    (WorkerResources(0.0, 1.0), {}, "waiting for 2 GPUs, 0 available, 40 s"),
    (WorkerResources(0.0, 0.5), {"GPU": 0.25}, "waiting for 1 GPU, 0.25 available, 40 s"),
    (WorkerResources(4.0), {"CPU": 1.0}, "waiting for 8 CPUs, 1 available, 40 s"),
    (WorkerResources(1.0, 1.0), {"CPU": 0.5},
     "waiting for 2 CPUs, 0.5 available and 2 GPUs, 0 available, 40 s"),
    (WorkerResources(0.0, 0.0, (("memory", 2.0**33),)), {"memory": 2.0**31},
     "waiting for 16 GiB of memory, 2 GiB available, 40 s"),
    (WorkerResources(0.0, 0.0, (("fast_disk", 1.0),)), {"CPU": 9.0},
     "waiting for 2 fast_disk, 0 available, 40 s"),
])
def test_what_is_lacking_is_named(
    resources: WorkerResources, free: Mapping[str, float], said: str
) -> None:
    assert reason(resources, free=free) == said


def test_workers_that_just_start_wait_for_nothing() -> None:
    one = WorkerResources(1.0)
    assert reason(one, waited_s=WAITING_AFTER_S - 1, free={}) is None
    assert reason(one, waiting=0, free={}) is None
    assert reason(one, waited_s=SCATTERED_AFTER_S - 1, free={"CPU": 8.0}) is None


def test_a_worker_that_no_node_could_hold_is_told_so() -> None:
    said = reason(
        WorkerResources(8.0, 1.0), waiting=1, free={"CPU": 9.0},
        nodes=({"CPU": 4.0}, {"CPU": 16.0}, {"CPU": 2.0, "GPU": 1.0}),
    )
    assert said == (
        "waiting for 1 GPU, 0 available, 40 s; no node that is up could ever hold a worker "
        "(8 CPUs and 1 GPU): the most on a node is 16 CPUs and 1 GPU"
    )


def test_room_that_is_scattered_over_nodes_is_told_after_a_while() -> None:
    said = reason(WorkerResources(2.0), free={"CPU": 3.0}, nodes=({"CPU": 2.0}, {"CPU": 2.0}))
    assert said == "waiting for a node with 2 CPUs free, 40 s; what is free lies on several nodes"


def test_a_cluster_without_nodes_holds_nothing() -> None:
    said = reason(WorkerResources(1.0), waiting=1, free={}, nodes=())
    assert said == (
        "waiting for 1 CPU, 0 available, 40 s; no node that is up could ever hold a worker "
        "(1 CPU): the most on a node is 0 CPUs"
    )
