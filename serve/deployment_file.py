"""A person's own deployment file as a Serve application, without a control plane."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inferay.engine.resources import Model, OnlineDeployment, is_local_path, load
from inferay.engine.resources.instance_types import instance_type
from inferay.engine.scoring.environments.declared import inline_spec
from inferay.engine.scoring.flavors import check_model, flavor_of
from inferay.errors import InvalidInput, nearest
from inferay.serve.declared import ALLOW_CPU, FIRST_VERSION, probe_of, scale_of, server_spec
from inferay.serve.replica_spec import ApplicationSpec, ReplicaResources, ReplicaSpec

#: What a person may give.
ARGUMENTS = ("deployment", "num_cpus")


def read_deployment(args: Mapping[str, Any]) -> ApplicationSpec:
    """Return what a person's arguments of `build` ask for; the code is used in place.

    Raises:
        InvalidInput: An argument, or something in the file, is wrong.
    """
    for name in args:
        if name not in ARGUMENTS:
            raise InvalidInput(
                f"unknown argument '{name}'{nearest(name, ARGUMENTS)}; expected deployment=FILE"
            )
    if not args.get("deployment"):
        raise InvalidInput("no deployment is given; expected deployment=FILE")
    path = Path(str(args["deployment"]))
    deployment = load(OnlineDeployment, path).entity
    code = deployment.code_configuration
    if code is not None and not is_local_path(code.code):
        raise InvalidInput(f"{path}: code: '{code.code}' is no folder of this machine")
    model = _model_path(deployment, path)
    kind = deployment.model.type if isinstance(deployment.model, Model) else None
    flavor = flavor_of(kind, has_code=code is not None)
    if flavor:
        check_model(flavor, Path(model))
    environment, _ = inline_spec(
        deployment, mlflow_model=Path(model) if flavor == "mlflow" else None
    )
    server = server_spec(
        deployment, code_dir=code.code if code else "", model=model, flavor=flavor,
        environment=environment,
    )
    size = instance_type(deployment.instance_type) if deployment.instance_type else None
    needs_gpu = size is not None and deployment.properties.get(ALLOW_CPU) != "true"
    threads = None if size is None else min(size.cpus, os.cpu_count() or 1)
    spec = ReplicaSpec(
        server, endpoint=deployment.endpoint_name or deployment.name, deployment=deployment.name,
        revision=FIRST_VERSION, liveness=probe_of(deployment.liveness_probe),
        readiness=probe_of(deployment.readiness_probe),
    )
    return ApplicationSpec(
        spec, deployment.instance_count, scale_of(deployment), ReplicaResources(
            _cpus(args.get("num_cpus", 1)), float(size.gpus) if size and needs_gpu else 0.0,
            threads=threads,
        ),
    )


def _model_path(deployment: OnlineDeployment, path: Path) -> str:
    model = deployment.model
    if model is None:
        return ""
    if not isinstance(model, Model) or not is_local_path(model.path):
        shown = model.path if isinstance(model, Model) else model
        raise InvalidInput(
            f"{path}: model: '{shown}' is not on this machine; give model: {{path: FOLDER}}, or "
            "create the deployment with a control plane"
        )
    return model.path


def _cpus(given: object) -> float:
    try:
        found = float(str(given))
    except ValueError:
        found = -1.0
    if not 0 <= found < 10_000:
        raise InvalidInput(f"num_cpus: expected a number of CPUs, got '{given}'")
    return found
