"""What a deployment means on this machine: its workers' size, and what its author should know.

On the embedded single machine instance types reserve nothing against each other: an instance asks
Ray for 1/64 of its CPUs, clamped to the machine's, so that blue, green and a batch job fit side by
side. What was clamped, ignored or is missing is said in a notice, a line each.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.orm import Session

from inferay.control.context import Context, Machine
from inferay.control.tables import Compute
from inferay.engine.batch.memory import MB, WORKER_MEMORY, worker_memory_bytes
from inferay.engine.batch.spec import WorkerSpec
from inferay.engine.resources import (
    BatchDeployment,
    InstanceType,
    gpu_share,
    instance_type,
    parse_reference,
)
from inferay.errors import Conflict, InvalidInput
from inferay.serve.declared import ALLOW_CPU

#: On one machine an instance asks Ray for this share of its CPUs.
EMBEDDED_SHARE = 1 / 64

#: Ray counts resources in ten-thousandths.
RAY_DECIMALS = 4


def size_of(session: Session, entity: BatchDeployment) -> InstanceType | None:
    """Return the instance type that a deployment asks for, or None for this machine's own size.

    Raises:
        InvalidInput: It names a type that nobody knows.
    """
    if entity.resources.instance_type:
        return instance_type(entity.resources.instance_type)
    compute = _compute(session, entity)
    return instance_type(compute.properties["properties"]["vmSize"]) if compute else None


def workers_of(
    context: Context, session: Session, entity: BatchDeployment
) -> tuple[WorkerSpec, list[str]]:
    """Return the workers of a job, and notices about what was clamped.

    Raises:
        InvalidInput: It wants a GPU that is not here.
    """
    size = size_of(session, entity)
    concurrency = entity.settings.max_concurrency_per_instance
    wanted = entity.resources.instance_count * concurrency
    compute = _compute(session, entity)
    notices = []
    if compute is not None:
        nodes = max(1, compute.properties["properties"]["scaleSettings"]["maxNodeCount"])
        if entity.resources.instance_count > nodes:
            wanted = nodes * concurrency
            notices.append(
                f"instance_count {entity.resources.instance_count} is more than compute "
                f"'{compute.name}' may have; {nodes} are used"
            )
    gpus = size.gpus if size else 0
    if not context.is_embedded:
        cpus = size.cpus if size else 1
        share = round(cpus / concurrency, RAY_DECIMALS)
        memory_bytes = worker_memory_bytes(
            entity.properties, instance_bytes=size.memory_bytes if size else None,
            concurrency=concurrency,
        )
        threads = max(1, cpus // concurrency)
        gpu = gpu_share(gpus, concurrency)
        return WorkerSpec(wanted, share, gpu, threads, memory_bytes), notices
    machine = context.machine
    if size is not None:
        notices += fit(machine, size, entity.properties)
    cpus = min(size.cpus, machine.cpus) if size else machine.cpus
    limit = context.workers_max or machine.cores
    if wanted > limit:
        notices.append(
            f"{wanted} workers were asked for (instance_count x max_concurrency_per_instance) and "
            f"this machine runs {limit} of one job (`inferay up --workers-max` changes that)"
        )
    share = max(round(cpus * EMBEDDED_SHARE / concurrency, RAY_DECIMALS), 10**-RAY_DECIMALS)
    num_gpus = gpu_share(min(gpus, machine.gpus), concurrency)
    threads = max(1, cpus // min(concurrency, limit))
    count = min(wanted, limit)
    memory_bytes = worker_memory_bytes(
        entity.properties, instance_bytes=size.memory_bytes if size else None,
        concurrency=concurrency, machine_bytes=machine.memory_bytes, workers=count,
    )
    if size and memory_bytes and WORKER_MEMORY not in entity.properties:
        wanted_bytes = size.memory_bytes // concurrency
        if memory_bytes < wanted_bytes:
            notices.append(
                f"a worker's share of instance type {size.name} is {wanted_bytes // MB:,} MB of "
                f"memory; on this machine it may use {memory_bytes // MB:,} MB"
            )
    return WorkerSpec(count, share, num_gpus, threads, memory_bytes), notices


def fit(machine: Machine, size: InstanceType, properties: Mapping[str, str]) -> list[str]:
    """Return what is said of an instance type that is larger than this one machine.

    Raises:
        InvalidInput: It has GPUs that are not here.
    """
    if size.gpus > machine.gpus and properties.get(ALLOW_CPU) != "true":
        raise InvalidInput(
            f"instance type {size.name} has {size.gpus} GPUs and this machine "
            f'{machine.gpus}; set properties: {{{ALLOW_CPU}: "true"}} to run on CPUs',
            target="/properties/resources/instanceType",
        )
    if size.cpus <= machine.cpus:
        return []
    return [
        f"instance type {size.name} has {size.cpus} CPUs and this machine {machine.cpus}; "
        f"{machine.cpus} are used"
    ]


def deployment_notices(context: Context, session: Session, entity: BatchDeployment) -> list[str]:
    """Return what the author of a batch deployment should know.

    Raises:
        NotFound: Its environment does not exist.
        InvalidInput: It wants a GPU that is not here.
    """
    notices = []
    compute = _compute_name(entity)
    if compute is not None and _compute(session, entity) is None:
        notices.append(
            f"compute '{compute}' is not defined; this machine is used (`inferay compute create` "
            "defines it)"
        )
    return notices + workers_of(context, session, entity)[1]


def _compute_name(entity: BatchDeployment) -> str | None:
    return parse_reference(entity.compute).name if entity.compute else None


def _compute(session: Session, entity: BatchDeployment) -> Compute | None:
    name = _compute_name(entity)
    return session.get(Compute, name) if name else None


def check_ready(state: str, what: str) -> None:
    """Check that a resource can be used.

    Raises:
        Conflict: It is being made or deleted, or it failed.
    """
    if state not in ("Succeeded", "Updating"):
        raise Conflict(f"{what} is {state}")
