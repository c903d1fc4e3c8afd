from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from inferay.control.context import Machine
from inferay.control.notices import deployment_notices, workers_of
from inferay.engine.batch.spec import WorkerSpec
from inferay.engine.resources import BatchDeployment
from inferay.errors import InvalidInput
from tests.control.conftest import Plane

GB = 1 << 30
SMALL = Machine(cpus=2, cores=2, gpus=0, memory_bytes=100 * GB)


def deployment(**more: Any) -> BatchDeployment:
    return BatchDeployment.model_validate({"name": "blue", "type": "model", **more})


def workers(plane: Plane, entity: BatchDeployment, **context: Any) -> tuple[WorkerSpec, list[str]]:
    with plane.database.read() as session:
        return workers_of(replace(plane.context, **context), session, entity)


def resources(kind: str | None = None, count: int = 1) -> dict[str, Any]:
    return {"instance_count": count, **({"instance_type": kind} if kind else {})}


def test_a_deployment_without_a_size_takes_the_machine_and_says_nothing(plane: Plane) -> None:
    spec, notices = workers(plane, deployment())
    assert (replace(spec, memory_bytes=None), notices) == (
        WorkerSpec(1, round(2 / 64, 4), 0.0, 2), []
    )


def test_a_larger_instance_is_clamped_to_the_machine_and_said(plane: Plane) -> None:
    entity = deployment(resources=resources("Standard_DS4_v2"))
    spec, notices = workers(plane, entity, machine=SMALL)
    assert spec == WorkerSpec(1, round(2 / 64, 4), 0.0, 2, 28 * GB)
    assert notices == ["instance type Standard_DS4_v2 has 8 CPUs and this machine 2; 2 are used"]
    smaller = deployment(resources=resources("Standard_DS1_v2"))
    assert workers(plane, smaller, machine=SMALL) == (
        WorkerSpec(1, round(1 / 64, 4), 0.0, 1, 7 * GB // 2), []
    )


def test_more_workers_than_cores_are_clamped_unless_told_otherwise(plane: Plane) -> None:
    entity = deployment(
        resources=resources(count=3), settings={"max_concurrency_per_instance": 2}
    )
    spec, notices = workers(plane, entity)
    assert (spec.count, spec.threads) == (2, 1)
    assert "6 workers were asked for" in notices[0]
    assert "--workers-max" in notices[0]
    assert workers(plane, entity, workers_max=6)[0].count == 6
    assert workers(plane, entity, workers_max=6)[1] == []


def test_a_worker_asks_ray_for_more_than_nothing_however_many_there_are(plane: Plane) -> None:
    entity = deployment(settings={"max_concurrency_per_instance": 100})
    one_cpu = Machine(cpus=1, cores=1, gpus=0, memory_bytes=GB)
    spec, _ = workers(plane, entity, workers_max=1000, machine=one_cpu)
    assert spec.num_cpus >= 0.0001


def test_the_memory_of_a_worker_is_clamped_to_the_machine_and_said(plane: Plane) -> None:
    entity = deployment(
        resources=resources("Standard_DS4_v2"), settings={"max_concurrency_per_instance": 2}
    )
    spec, notices = workers(plane, entity, machine=replace(SMALL, memory_bytes=20 * GB))
    assert spec.memory_bytes == 9 * GB   # a tenth is kept for the rest, and two workers share
    assert notices[-1] == (
        "a worker's share of instance type Standard_DS4_v2 is 14,336 MB of memory; on this machine "
        "it may use 9,216 MB"
    )


def test_a_property_sets_the_memory_of_a_worker(plane: Plane) -> None:
    for text, memory_bytes in (("300", 300 << 20), ("0", None)):
        entity = deployment(properties={"inferay.worker_memory_mb": text})
        for is_embedded in (True, False):
            spec, notices = workers(plane, entity, is_embedded=is_embedded)
            assert (spec.memory_bytes, notices) == (memory_bytes, [])
    for text in ("", "2GB", "-1", "1.5", "²", "1" * 10, "9" * 5000):
        entity = deployment(properties={"inferay.worker_memory_mb": text})
        with pytest.raises(InvalidInput, match=r"worker_memory_mb: expected a whole number of MB"):
            workers(plane, entity)


def test_a_cluster_is_asked_for_what_the_instance_type_has(plane: Plane) -> None:
    entity = deployment(
        resources=resources("Standard_NC12s_v3", 3), settings={"max_concurrency_per_instance": 2}
    )
    spec, notices = workers(plane, entity, is_embedded=False)
    assert (spec, notices) == (WorkerSpec(6, 6.0, 1.0, 6, 112 * GB), [])


def test_a_gpu_type_without_a_gpu_is_refused_and_names_the_way_out(plane: Plane) -> None:
    with pytest.raises(InvalidInput, match=r"inferay\.allow_cpu"):
        workers(plane, deployment(resources=resources("Standard_NC6s_v3")))
    allowed = deployment(
        resources=resources("Standard_NC6s_v3"), properties={"inferay.allow_cpu": "true"}
    )
    assert workers(plane, allowed)[0].num_gpus == 0.0


def test_a_gpu_is_shared_by_the_workers_of_its_instance(plane: Plane) -> None:
    entity = deployment(
        resources=resources("Standard_NC6s_v3"), settings={"max_concurrency_per_instance": 2}
    )
    machine = Machine(cpus=8, cores=4, gpus=1, memory_bytes=500 * GB)
    spec, _ = workers(plane, entity, machine=machine)
    assert (spec.count, spec.num_gpus) == (2, 0.5)


def test_a_compute_gives_the_size_and_a_bound(plane: Plane) -> None:
    body = {"properties": {"computeType": "AmlCompute", "properties": {
        "vmSize": "Standard_DS1_v2", "scaleSettings": {"maxNodeCount": 2, "minNodeCount": 0},
    }}}
    plane.put("/v1/computes/small", body).raise_for_status()
    entity = deployment(compute="azureml:small", resources=resources(count=5))
    spec, notices = workers(plane, entity, workers_max=9)
    assert (spec.count, spec.threads) == (2, 1)
    assert notices == ["instance_count 5 is more than compute 'small' may have; 2 are used"]


@pytest.mark.parametrize("is_embedded", [True, False])
def test_a_compute_without_instances_still_gives_one_worker(
    plane: Plane, is_embedded: bool
) -> None:
    body = {"properties": {"computeType": "AmlCompute", "properties": {
        "vmSize": "Standard_DS1_v2", "scaleSettings": {"maxNodeCount": 0, "minNodeCount": 0},
    }}}
    plane.put("/v1/computes/none", body).raise_for_status()
    entity = deployment(compute="azureml:none")
    assert workers(plane, entity, is_embedded=is_embedded)[0].count == 1


def test_an_unknown_size_is_refused_with_the_nearest(plane: Plane) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'Standard_DS3_v2'"):
        workers(plane, deployment(resources=resources("Standard_DS3v2")))


def notices(plane: Plane, **more: Any) -> list[str]:
    with plane.database.read() as session:
        return deployment_notices(plane.context, session, deployment(**more))


def test_an_undefined_compute_is_said(plane: Plane) -> None:
    [said] = notices(plane, compute="azureml:far")
    assert "compute 'far' is not defined" in said
