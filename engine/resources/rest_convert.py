"""Between entities and the `properties` of REST bodies, one pair of functions for each kind.

`write_*` gives the whole body in Azure's names; `read_*` gives an entity's fields from a parsed
body. Neither looks at a server's own fields.
"""

from __future__ import annotations

from typing import Any

import yaml

from inferay.engine.resources.assets import Asset, Code, Data, Environment, Model
from inferay.engine.resources.base import Strict
from inferay.engine.resources.deployments import BatchDeployment, CommonDeployment
from inferay.engine.resources.durations import format_duration
from inferay.engine.resources.endpoints import BatchEndpoint
from inferay.engine.resources.references import is_local_path
from inferay.engine.resources.rest_base import WIRE_WORDS, Ids, filled
from inferay.engine.resources.rest_bodies import (
    BatchDeploymentBody,
    BatchEndpointBody,
    CodeVersionBody,
    DataVersionBody,
    EnvironmentVersionBody,
    InferenceConfigBody,
    ModelVersionBody,
)
from inferay.engine.resources.yaml_source import parse_yaml
from inferay.errors import InvalidInput


def write_batch_endpoint(entity: BatchEndpoint, ids: Ids) -> dict[str, Any]:
    """Return the body of a batch endpoint; `defaults` is never null."""
    return {
        "tags": dict(entity.tags),
        "properties": filled(
            authMode=WIRE_WORDS[entity.auth_mode],
            description=entity.description,
            properties=dict(entity.properties),
            defaults=filled(deploymentName=entity.defaults.deployment_name),
        ),
    }


def read_batch_endpoint(body: BatchEndpointBody) -> dict[str, Any]:
    """Return the fields of a batch endpoint."""
    properties = body.properties
    return {
        "tags": body.tags,
        "auth_mode": properties.auth_mode,
        "description": properties.description,
        "properties": properties.properties,
        "defaults": {"deployment_name": properties.defaults.deployment_name},
    }


def write_batch_deployment(entity: BatchDeployment, ids: Ids) -> dict[str, Any]:
    """Return the body of a batch deployment.

    Raises:
        InvalidInput: It has an inline model or environment, or local code, and no id for it.
    """
    model = id_of(entity.model, ids.model, "model")
    settings, resources = entity.settings, entity.resources
    properties = filled(
        model=None if model is None else {"referenceType": "Id", "assetId": model},
        codeConfiguration=code_body(entity, ids),
        environmentId=id_of(entity.environment, ids.environment, "environment"),
        environmentVariables=dict(entity.environment_variables),
        description=entity.description,
        properties=dict(entity.properties),
        compute=entity.compute,
        resources=filled(
            instanceCount=resources.instance_count,
            instanceType=resources.instance_type,
            properties=dict(resources.properties),
        ),
        miniBatchSize=settings.mini_batch_size,
        split=None if settings.split == "auto" else settings.split,   # no field of Azure's
        maxConcurrencyPerInstance=settings.max_concurrency_per_instance,
        outputAction=WIRE_WORDS[settings.output_action],
        outputFileName=settings.output_file_name,
        errorThreshold=settings.error_threshold,
        loggingLevel=WIRE_WORDS[settings.logging_level],
        retrySettings={
            "maxRetries": settings.retry_settings.max_retries,
            "timeout": format_duration(settings.retry_settings.timeout),
        },
    )
    return {"tags": dict(entity.tags), "properties": properties}


def code_body(entity: CommonDeployment, ids: Ids) -> dict[str, Any] | None:
    """Return the body of a deployment's code; None if it has none.

    Raises:
        InvalidInput: It is local, and there is no id for it.
    """
    if entity.code_configuration is None:
        return None
    given = entity.code_configuration.code
    return filled(
        codeId=id_of(None if is_local_path(given) else given, ids.code, "code", given),
        scoringScript=entity.code_configuration.scoring_script,
    )


def id_of(own: object, registered: str | None, field: str, given: str | None = None) -> str | None:
    """Return the id to send: the registered one, else the reference that the entity holds.

    Raises:
        InvalidInput: What the entity holds is not registered.
    """
    if registered is not None:
        return registered
    if isinstance(own, Strict) or (own is None and given is not None):
        raise InvalidInput(f"{field}: not uploaded yet; expected {field}_id for it", target=field)
    return None if own is None else str(own)


def read_batch_deployment(body: BatchDeploymentBody) -> dict[str, Any]:
    """Return the fields of a batch deployment."""
    properties, code = body.properties, body.properties.code_configuration
    settings = {
        name: getattr(properties, name)
        for name in (
            "mini_batch_size", "split", "max_concurrency_per_instance", "output_action",
            "output_file_name", "error_threshold", "logging_level",
        )
    }  # fmt: skip
    return {
        "tags": body.tags,
        "model": None if properties.model is None else properties.model.asset_id,
        "code_configuration": code
        and {"code": code.code_id, "scoring_script": code.scoring_script},
        "environment": properties.environment_id,
        "environment_variables": properties.environment_variables,
        "description": properties.description,
        "properties": properties.properties,
        "compute": properties.compute,
        "resources": properties.resources.model_dump(),
        "settings": {**settings, "retry_settings": properties.retry_settings.model_dump()},
    }


def _asset(entity: Asset, **values: object) -> dict[str, Any]:
    properties = filled(
        description=entity.description,
        tags=dict(entity.tags),
        properties=dict(entity.properties),
        isAnonymous=False,
        isArchived=False,
        **values,
    )
    return {"properties": properties}


def _asset_fields(properties: Any) -> dict[str, Any]:
    return {name: getattr(properties, name) for name in ("description", "tags", "properties")}


def write_model(entity: Model, ids: Ids) -> dict[str, Any]:
    """Return the body of a model version; `flavors` is never null."""
    return _asset(entity, modelType=entity.type, modelUri=entity.path, flavors=dict(entity.flavors))


def read_model(body: ModelVersionBody) -> dict[str, Any]:
    """Return the fields of a model version."""
    properties = body.properties
    own = {"type": properties.model_type, "path": properties.model_uri}
    return {**_asset_fields(properties), **own, "flavors": properties.flavors}


def write_data(entity: Data, ids: Ids) -> dict[str, Any]:
    """Return the body of a data version."""
    return _asset(entity, dataType=entity.type, dataUri=entity.path)


def read_data(body: DataVersionBody) -> dict[str, Any]:
    """Return the fields of a data version."""
    properties = body.properties
    own = {"type": properties.data_type, "path": properties.data_uri}
    return {**_asset_fields(properties), **own}


def write_code(entity: Code, ids: Ids) -> dict[str, Any]:
    """Return the body of a code version."""
    return _asset(entity, codeUri=entity.path)


def read_code(body: CodeVersionBody) -> dict[str, Any]:
    """Return the fields of a code version."""
    return {**_asset_fields(body.properties), "path": body.properties.code_uri}


def write_environment(entity: Environment, ids: Ids) -> dict[str, Any]:
    """Return the body of an environment version; the conda file is YAML text.

    Raises:
        InvalidInput: The conda file is still a path.
    """
    if isinstance(entity.conda_file, str):
        raise InvalidInput(
            "conda_file: not read yet; expected its content (see resolve_local_paths)",
            target="conda_file",
        )
    conda, build = entity.conda_file, entity.build
    return _asset(
        entity,
        image=entity.image,
        condaFile=None if conda is None else yaml.safe_dump(conda, sort_keys=False),
        build=build and {"contextUri": build.path, "dockerfilePath": build.dockerfile_path},
        inferenceConfig=entity.inference_config
        and InferenceConfigBody.model_validate(
            {camel(key): value for key, value in entity.inference_config.model_dump().items()}
        ).model_dump(by_alias=True, exclude_none=True),
        osType=WIRE_WORDS[entity.os_type],
    )


def camel(name: str) -> str:
    """Return the name as a REST body writes it: `mini_batch_size` is `miniBatchSize`."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def read_environment(body: EnvironmentVersionBody) -> dict[str, Any]:
    """Return the fields of an environment version.

    Raises:
        InvalidInput: The conda file is not plain YAML.
    """
    properties, build = body.properties, body.properties.build
    conda = properties.conda_file
    routes = properties.inference_config
    return {
        **_asset_fields(properties),
        "image": properties.image,
        "conda_file": None if not conda else parse_yaml(conda, "properties.condaFile").data,
        "build": build and {"path": build.context_uri, "dockerfile_path": build.dockerfile_path},
        "inference_config": routes and routes.model_dump(exclude_none=True),
        "os_type": properties.os_type,
    }
