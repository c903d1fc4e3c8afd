"""What a deployment holds inline (code, model, environment), registered as assets of its own."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

from inferay.client.http import Http
from inferay.client.resources import Assets
from inferay.engine.resources import (
    BatchDeployment,
    Code,
    Environment,
    Model,
    OnlineDeployment,
    is_local_path,
    to_rest,
)


def body_of(http: Http, deployment: BatchDeployment | OnlineDeployment) -> dict[str, Any]:
    """Register what the deployment holds inline; return its REST body with their ids; blocks.

    Raises:
        InvalidInput: A local path does not exist.
    """
    return to_rest(
        deployment, code_id=_register_code(http, deployment),
        model_id=_register_model(http, deployment),
        environment_id=_register_environment(http, deployment),
    )


def _register_code(http: Http, deployment: BatchDeployment | OnlineDeployment) -> str | None:
    code = deployment.code_configuration
    if code is None or not is_local_path(code.code):
        return None
    entity = Code(name=str(uuid.uuid4()), version="1", path=code.code)
    registered = Assets(http, "codes", Code).create_or_update(entity)
    return f"azureml:{registered.name}:{registered.version}"


def _register_model(http: Http, deployment: BatchDeployment | OnlineDeployment) -> str | None:
    model = deployment.model
    if not isinstance(model, Model):
        return None
    if model.name is None:
        model = model.model_copy(update={
            "name": f"{deployment.endpoint_name}-{deployment.name}", "version": None,
        })
    registered = Assets(http, "models", Model).create_or_update(model)
    return f"azureml:{registered.name}:{registered.version}"


def _register_environment(
    http: Http, deployment: BatchDeployment | OnlineDeployment
) -> str | None:
    environment = deployment.environment
    if not isinstance(environment, Environment):
        return None
    if environment.name is None:
        content = json.dumps(to_rest(environment), sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:32]
        update = {"name": "CliV2AnonymousEnvironment", "version": digest}
        environment = environment.model_copy(update=update)
    registered = Assets(http, "environments", Environment).create_or_update(environment)
    return f"azureml:{registered.name}:{registered.version}"
