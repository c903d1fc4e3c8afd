"""Online endpoints and deployments as users declare them; managed and Kubernetes ones alike."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from inferay.engine.resources.base import Strict
from inferay.engine.resources.deployments import CommonDeployment
from inferay.engine.resources.endpoints import CommonEndpoint
from inferay.engine.resources.fields import (
    FilledText,
    InstanceCount,
    JsonMap,
    OnlineAuthMode,
    OnlineDeploymentName,
    PollingSeconds,
    ProbeCount,
    ProbeSeconds,
    QueueWaitMilliseconds,
    RequestConcurrency,
    RequestTimeoutMilliseconds,
    Shares,
    Traffic,
    UtilisationPercentage,
    choice,
    refusal,
)


class OnlineEndpoint(CommonEndpoint):
    """A stable name, URI and traffic rule over one or more deployments.

    Attributes:
        traffic: Percent of the requests by deployment; 100 in sum, or 0.
        mirror_traffic: Percent of the requests that a deployment gets a copy of, each by itself.
    """

    NO_EFFECT: ClassVar[frozenset[str]] = CommonEndpoint.NO_EFFECT | {"compute"}

    auth_mode: OnlineAuthMode = "key"
    traffic: Traffic = Field(default_factory=dict)
    mirror_traffic: Shares = Field(default_factory=dict)


class RequestSettings(Strict):
    """How much an instance takes on at once, and for how long.

    Attributes:
        request_timeout_ms: How long a request may take.
        max_concurrent_requests_per_instance: Calls of `run()` at once.
        max_queue_wait_ms: How long a request waits for its call at most.
    """

    request_timeout_ms: RequestTimeoutMilliseconds = 5000
    max_concurrent_requests_per_instance: RequestConcurrency = 1
    max_queue_wait_ms: QueueWaitMilliseconds = 500


class Probe(Strict):
    """How often an instance is asked whether it works; times in seconds."""

    initial_delay: ProbeSeconds = 10
    period: ProbeSeconds = 10
    timeout: ProbeSeconds = 2
    success_threshold: ProbeCount = 1
    failure_threshold: ProbeCount = 30


class ScaleSettings(Strict):
    """How many instances there are: a fixed number, or by their utilisation.

    Attributes:
        type: `default`: `instance_count` of the deployment.
        polling_interval: Seconds between two looks.
        target_utilization_percentage: Of `max_concurrent_requests_per_instance`.
    """

    type: Annotated[
        Literal["default", "target_utilization"],
        BeforeValidator(choice("default", "target_utilization")),
    ] = "default"
    min_instances: InstanceCount = 1
    max_instances: InstanceCount = 1
    polling_interval: PollingSeconds = 1
    target_utilization_percentage: UtilisationPercentage = 70

    @model_validator(mode="after")
    def _is_consistent(self) -> ScaleSettings:
        given = self.model_fields_set - {"type"}
        if self.type == "default" and given:
            raise refusal(
                "given, but type: default has a fixed number of instances; expected "
                "type: target_utilization", at=(min(given),),
            )
        if self.min_instances > self.max_instances:
            raise refusal(
                f"expected at most max_instances ({self.max_instances}), got {self.min_instances}",
                at=("min_instances",),
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_has_no_meaning(self, write: SerializerFunctionWrapHandler) -> Any:
        return {"type": self.type} if self.type == "default" else write(self)


class ContainerResources(Strict):
    """What a Kubernetes deployment asks for: `requests` and `limits` of cpu, memory and gpu."""

    requests: JsonMap = Field(default_factory=dict)
    limits: JsonMap = Field(default_factory=dict)


class OnlineDeployment(CommonDeployment):
    """A model, its code, environment and instances, as requests reach them.

    Attributes:
        instance_count: Instances, where the scale settings do not say.
        instance_type: What one instance gets; one CPU where it is not given.
        data_collector: Kept for later; collects nothing yet.
    """

    NO_EFFECT: ClassVar[frozenset[str]] = CommonDeployment.NO_EFFECT | {"startup_probe"}
    INERT: ClassVar[frozenset[str]] = frozenset({"data_collector", "model_mount_path"})

    name: OnlineDeploymentName
    type: Annotated[
        Literal["managed", "kubernetes"], BeforeValidator(choice("managed", "kubernetes"))
    ] = "managed"
    instance_count: InstanceCount = 1
    instance_type: FilledText | None = None
    resources: ContainerResources | None = None
    request_settings: RequestSettings = Field(default_factory=RequestSettings)
    scale_settings: ScaleSettings = Field(default_factory=ScaleSettings)
    liveness_probe: Probe = Field(default_factory=Probe)
    readiness_probe: Probe = Field(default_factory=Probe)
    model_mount_path: FilledText | None = None
    data_collector: JsonMap = Field(default_factory=dict)
