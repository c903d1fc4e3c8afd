"""What an online deployment becomes on Ray Serve: its code, model and size, resolved.

How an application is kept in a row, and what is added to it when Serve is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy.orm import Session

from inferay.control.context import Context, Machine
from inferay.control.environments import surroundings
from inferay.control.notices import (
    EMBEDDED_SHARE,
    RAY_DECIMALS,
    fit,
)
from inferay.control.scored import scored_by
from inferay.engine.resources import InstanceType, OnlineDeployment, instance_type
from inferay.errors import InvalidInput
from inferay.serve.declared import probe_of, scale_of, server_spec
from inferay.serve.replica_spec import ApplicationSpec, ReplicaResources, ReplicaSpec, Scale
from inferay.serve.routing import credential

#: An instance of a deployment that names no type has one CPU.
DEFAULT_CPUS = 1

#: Kubernetes' amounts: `500m`, `0.5`, `1Gi`.
_AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([a-zA-Z]{0,2})")
_UNITS: Mapping[str, float] = {
    "": 1, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}


def resolve(
    context: Context, session: Session, entity: OnlineDeployment
) -> tuple[ApplicationSpec, list[str]]:
    """Return the application of a deployment, without a revision, and what its author should know.

    Raises:
        InvalidInput: Nothing scores for it, a property is wrong, or there is no such GPU here.
        NotFound: An asset that it names does not exist.
        Conflict: An asset is not ready.
    """
    endpoint = str(entity.endpoint_name)
    scored = scored_by(session, entity)
    environment = surroundings(session, entity, scored)
    server = replace(server_spec(
        entity, code_dir=scored.code_path, model=scored.model_path, flavor=scored.flavor,
        name=endpoint, version=entity.name, prefix=f"/endpoints/{endpoint}",
        environment=environment.spec,
    ), model_hash=scored.model_hash)
    resources, notices = _resources(context, entity)
    spec = ReplicaSpec(
        server, endpoint=endpoint, deployment=entity.name, revision="",
        pairs_dir=str(context.workspace.pairs_folder(endpoint)),
        host="127.0.0.1" if context.is_embedded else None,
        liveness=probe_of(entity.liveness_probe), readiness=probe_of(entity.readiness_probe),
    )
    scale = scale_of(entity)
    return ApplicationSpec(spec, _first_count(entity, scale), scale, resources), [
        *environment.notices, *notices,
    ]


def write_application(application: ApplicationSpec) -> dict[str, Any]:
    """Return it as a row keeps it: it holds no secret."""
    kept = asdict(application)
    del kept["renewals"]
    return kept


def read_application(kept: Mapping[str, Any]) -> ApplicationSpec:
    """Return what `write_application` wrote."""
    scale = kept["scale"]
    return ApplicationSpec(
        ReplicaSpec.from_dict(kept["spec"]), kept["instances"], scale and Scale(**scale),
        ReplicaResources(**kept["resources"]),
    )


def as_revision(context: Context, application: ApplicationSpec, revision: str) -> ApplicationSpec:
    """Return the application as this revision of its deployment."""
    spec = application.spec
    logs = context.workspace.online_logs(spec.endpoint, spec.deployment) / revision
    return replace(application, spec=replace(spec, revision=revision, log_dir=str(logs)))


def needs_new_processes(old: ApplicationSpec, new: ApplicationSpec) -> bool:
    """Return whether more than the number of instances differs; the revisions do not count."""
    def essence(one: ApplicationSpec) -> tuple[ReplicaSpec, ReplicaResources]:
        return replace(one.spec, revision="", log_dir=""), one.resources

    return essence(old) != essence(new)


def armed(
    application: ApplicationSpec, *, edge_url: str, registration_key: bytes
) -> ApplicationSpec:
    """Return the application with what its replicas register with, as Serve is told it."""
    spec = application.spec
    secret = credential(registration_key, spec.endpoint, spec.deployment, spec.revision)
    return replace(application, spec=replace(spec, edge_url=edge_url, credential=secret))


def _first_count(entity: OnlineDeployment, scale: Scale | None) -> int:
    if scale is None:
        return entity.instance_count
    return max(scale.replicas_min, min(scale.replicas_max, entity.instance_count))


def _resources(context: Context, entity: OnlineDeployment) -> tuple[ReplicaResources, list[str]]:
    size = _size(entity)
    if context.is_embedded:
        return _embedded_resources(context.machine, size, entity.properties)
    if size is None:
        return ReplicaResources(float(DEFAULT_CPUS), threads=DEFAULT_CPUS), []
    threads = max(1, int(size.cpus))
    return ReplicaResources(size.cpus, float(size.gpus), size.memory_bytes or None, threads), []


def _embedded_resources(
    machine: Machine, size: InstanceType | None, properties: Mapping[str, str]
) -> tuple[ReplicaResources, list[str]]:
    """Return what reserves nothing against the others on one machine, and what was clamped."""
    notices = fit(machine, size, properties) if size else []
    cpus = min(size.cpus, machine.cpus) if size else DEFAULT_CPUS
    share = max(round(cpus * EMBEDDED_SHARE, RAY_DECIMALS), 10**-RAY_DECIMALS)
    gpus = min(size.gpus, machine.gpus) if size else 0
    return ReplicaResources(share, float(gpus), threads=max(1, int(cpus))), notices


def _size(entity: OnlineDeployment) -> InstanceType | None:
    """Return the size of one instance: by its type, else by a Kubernetes deployment's requests."""
    if entity.instance_type:
        return instance_type(entity.instance_type)
    if entity.resources is None:
        return None
    wanted = {**entity.resources.limits, **entity.resources.requests}
    gpus = wanted.get("nvidia.com/gpu", wanted.get("gpu", 0))
    return InstanceType(
        "of the declared resources", max(1, round(_amount("cpu", wanted.get("cpu", 1)))),
        round(_amount("memory", wanted.get("memory", 0))), round(_amount("gpu", gpus)), 0.0,
    )


def _amount(name: str, given: object) -> float:
    match = _AMOUNT.fullmatch(str(given))
    if match is None or match[2] not in _UNITS:
        raise InvalidInput(
            f"resources: {name}: expected an amount such as 0.5, 500m or 1Gi, got '{given}'",
            target="/properties/containerResourceRequirements",
        )
    return float(match[1]) * _UNITS[match[2]]
