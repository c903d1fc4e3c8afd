"""REST bodies of online endpoints and deployments, and the way there and back.

Azure's bodies have durations where the YAML has milliseconds and seconds, and the number of
instances in `sku.capacity`; the SDK needs `traffic`, `mirrorTraffic` and `scaleSettings` in every
answer.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from inferay.engine.resources.durations import format_duration, parse_duration
from inferay.engine.resources.fields import (
    EnvironmentReference,
    FilledText,
    InstanceCount,
    JsonMap,
    LogLines,
    ModelReference,
    OnlineAuthMode,
    ProbeCount,
    RequestConcurrency,
    Secret,
    Shares,
    Text,
    TextMap,
    Traffic,
    UtilisationPercentage,
    Variables,
    choice,
    refusal,
)
from inferay.engine.resources.online import OnlineDeployment, OnlineEndpoint, Probe
from inferay.engine.resources.rest_base import WIRE_WORDS, Body, Ids, Resource, filled
from inferay.engine.resources.rest_bodies import CodeConfigurationBody
from inferay.engine.resources.rest_convert import camel, code_body, id_of
from inferay.engine.resources.wording import shown
from inferay.errors import InvalidInput


def _duration(unit_s: float, unit: str) -> BeforeValidator:
    """Return a validator for a duration of whole units, which gives their number."""

    def check(value: object) -> int:
        try:
            count = parse_duration(value) / unit_s if isinstance(value, str) else -1.0
        except InvalidInput:
            count = -1.0
        if count >= 0 and abs(count - round(count)) < 1e-6:
            return round(count)
        raise refusal(f"expected a duration of whole {unit}, such as PT5S, got {shown(value)}")

    return BeforeValidator(check)


MillisecondsDuration = Annotated[int, _duration(0.001, "milliseconds")]
SecondsDuration = Annotated[int, _duration(1.0, "seconds")]


class OnlineEndpointProperties(Body):
    """`properties` of an online endpoint."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"scoringUri", "swaggerUri", "provisioningState"}
    )
    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"keys", "compute", "publicNetworkAccess"})

    auth_mode: OnlineAuthMode = "key"
    description: Text | None = None
    properties: TextMap = Field(default_factory=dict)
    traffic: Traffic = Field(default_factory=dict)
    mirror_traffic: Shares = Field(default_factory=dict)


class OnlineEndpointBody(Resource):
    """An online endpoint."""

    tags: TextMap = Field(default_factory=dict)
    properties: OnlineEndpointProperties


class RequestSettingsBody(Body):
    """`requestSettings`; read as milliseconds."""

    max_concurrent_requests_per_instance: RequestConcurrency = 1
    max_queue_wait: MillisecondsDuration = 500
    request_timeout: MillisecondsDuration = 5000


class ProbeBody(Body):
    """A probe; read as seconds."""

    initial_delay: SecondsDuration = 10
    period: SecondsDuration = 10
    timeout: SecondsDuration = 2
    success_threshold: ProbeCount = 1
    failure_threshold: ProbeCount = 30


class ScaleSettingsBody(Body):
    """`scaleSettings`; what is None was not given."""

    scale_type: Annotated[
        Literal["default", "target_utilization"],
        BeforeValidator(choice("default", "target_utilization")),
    ] = "default"
    min_instances: InstanceCount | None = None
    max_instances: InstanceCount | None = None
    polling_interval: SecondsDuration | None = None
    target_utilization_percentage: UtilisationPercentage | None = None


class ContainerResourcesBody(Body):
    """`containerResourceRequirements`."""

    container_resource_requests: JsonMap = Field(default_factory=dict)
    container_resource_limits: JsonMap = Field(default_factory=dict)


class SkuBody(Body):
    """How many instances."""

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"name", "tier", "size", "family"})

    capacity: InstanceCount = 1


class OnlineDeploymentProperties(Body):
    """`properties` of an online deployment."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset({"provisioningState", "error"})
    NO_EFFECT: ClassVar[frozenset[str]] = frozenset(
        {"appInsightsEnabled", "egressPublicNetworkAccess", "privateNetworkConnection",
         "startupProbe"}
    )

    endpoint_compute_type: Annotated[
        Literal["managed", "kubernetes"], BeforeValidator(choice("managed", "kubernetes"))
    ] = "managed"
    code_configuration: CodeConfigurationBody | None = None
    description: Text | None = None
    environment_id: EnvironmentReference | None = None
    environment_variables: Variables = Field(default_factory=dict)
    properties: TextMap = Field(default_factory=dict)
    model: ModelReference | None = None
    model_mount_path: FilledText | None = None
    instance_type: FilledText | None = None
    container_resource_requirements: ContainerResourcesBody | None = None
    request_settings: RequestSettingsBody = Field(default_factory=RequestSettingsBody)
    scale_settings: ScaleSettingsBody = Field(default_factory=ScaleSettingsBody)
    liveness_probe: ProbeBody = Field(default_factory=ProbeBody)
    readiness_probe: ProbeBody = Field(default_factory=ProbeBody)
    data_collector: JsonMap = Field(default_factory=dict)


class OnlineDeploymentBody(Resource):
    """An online deployment."""

    NO_EFFECT: ClassVar[frozenset[str]] = Resource.NO_EFFECT - {"sku"}

    tags: TextMap = Field(default_factory=dict)
    sku: SkuBody = Field(default_factory=SkuBody)
    properties: OnlineDeploymentProperties


class RegenerateKeysBody(Body):
    """Which key is replaced, and perhaps by which."""

    key_type: Annotated[
        Literal["primary", "secondary"], BeforeValidator(choice("primary", "secondary"))
    ] = "primary"
    key_value: Secret | None = None


class GetLogsBody(Body):
    """Whose logs, and how many of the last lines."""

    container_type: Annotated[
        Literal["inference_server", "storage_initializer"],
        BeforeValidator(choice("inference_server", "storage_initializer")),
    ] = "inference_server"
    tail: LogLines = 5000


def write_online_endpoint(entity: OnlineEndpoint, ids: Ids) -> dict[str, Any]:
    """Return the body of an online endpoint; `traffic` and `mirrorTraffic` are never null."""
    return {
        "tags": dict(entity.tags),
        "properties": filled(
            authMode=WIRE_WORDS[entity.auth_mode],
            description=entity.description,
            properties=dict(entity.properties),
            traffic=dict(entity.traffic),
            mirrorTraffic=dict(entity.mirror_traffic),
        ),
    }


def read_online_endpoint(body: OnlineEndpointBody) -> dict[str, Any]:
    """Return the fields of an online endpoint."""
    return {"tags": body.tags, **body.properties.model_dump()}


def write_online_deployment(entity: OnlineDeployment, ids: Ids) -> dict[str, Any]:
    """Return the body of an online deployment.

    Raises:
        InvalidInput: It has an inline model or environment, or local code, and no id for it.
    """
    requests = entity.request_settings
    resources = entity.resources
    return {
        "tags": dict(entity.tags),
        "sku": {"name": "Default", "capacity": entity.instance_count},
        "properties": filled(
            endpointComputeType=WIRE_WORDS[entity.type],
            codeConfiguration=code_body(entity, ids),
            description=entity.description,
            environmentId=id_of(entity.environment, ids.environment, "environment"),
            environmentVariables=dict(entity.environment_variables),
            properties=dict(entity.properties),
            model=id_of(entity.model, ids.model, "model"),
            modelMountPath=entity.model_mount_path,
            instanceType=entity.instance_type,
            containerResourceRequirements=resources and {
                "containerResourceRequests": dict(resources.requests),
                "containerResourceLimits": dict(resources.limits),
            },
            requestSettings={
                "maxConcurrentRequestsPerInstance": requests.max_concurrent_requests_per_instance,
                "maxQueueWait": format_duration(requests.max_queue_wait_ms / 1000),
                "requestTimeout": format_duration(requests.request_timeout_ms / 1000),
            },
            scaleSettings=_scale_body(entity),
            livenessProbe=_probe_body(entity.liveness_probe),
            readinessProbe=_probe_body(entity.readiness_probe),
            dataCollector=dict(entity.data_collector) or None,
        ),
    }


def _scale_body(entity: OnlineDeployment) -> dict[str, Any]:
    scale = entity.scale_settings
    if scale.type == "default":
        return {"scaleType": "Default"}
    return {
        "scaleType": "TargetUtilization",
        "minInstances": scale.min_instances,
        "maxInstances": scale.max_instances,
        "pollingInterval": format_duration(scale.polling_interval),
        "targetUtilizationPercentage": scale.target_utilization_percentage,
    }


def _probe_body(probe: Probe) -> dict[str, Any]:
    counts = ("success_threshold", "failure_threshold")
    return {
        camel(name): value if name in counts else format_duration(value)
        for name, value in probe.model_dump().items()
    }


def read_online_deployment(body: OnlineDeploymentBody) -> dict[str, Any]:
    """Return the fields of an online deployment."""
    properties, code = body.properties, body.properties.code_configuration
    requests, resources = properties.request_settings, properties.container_resource_requirements
    scale = properties.scale_settings.model_dump(exclude_none=True)
    return {
        "tags": body.tags,
        "type": properties.endpoint_compute_type,
        "instance_count": body.sku.capacity,
        "code_configuration": code
        and {"code": code.code_id, "scoring_script": code.scoring_script},
        "environment": properties.environment_id,
        "resources": resources and {
            "requests": resources.container_resource_requests,
            "limits": resources.container_resource_limits,
        },
        "request_settings": {
            "max_concurrent_requests_per_instance":
                requests.max_concurrent_requests_per_instance,
            "max_queue_wait_ms": requests.max_queue_wait,
            "request_timeout_ms": requests.request_timeout,
        },
        "scale_settings": {"type": scale.pop("scale_type"), **scale},
        "liveness_probe": properties.liveness_probe.model_dump(),
        "readiness_probe": properties.readiness_probe.model_dump(),
        **{
            name: getattr(properties, name)
            for name in (
                "description", "environment_variables", "properties", "model",
                "model_mount_path", "instance_type", "data_collector",
            )
        },
    }
