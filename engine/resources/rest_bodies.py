"""REST bodies with Azure's names, as a client may PUT them.

Every model reads camelCase names in any case (Azure's do, and its documents mix them), drops
nulls, ignores what only a server sets, and refuses what it doesn't know. Durations are read as
whole seconds and enums as the entities' words, so that a parsed body holds the same values as an
entity. The body of a batch invocation is in `rest_jobs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, StrictBool

from inferay.engine.resources.deployments import PIPELINE_REFUSAL
from inferay.engine.resources.fields import (
    AuthMode,
    ComputeReference,
    Concurrency,
    DataType,
    EnvironmentReference,
    ErrorThreshold,
    FilledText,
    InnerPath,
    InstanceCount,
    JsonMap,
    LoggingLevel,
    MiniBatchSize,
    ModelReference,
    ModelType,
    Name,
    OutputAction,
    OutputFileName,
    Port,
    Retries,
    Split,
    Text,
    TextMap,
    Variables,
    choice,
    refusal,
)
from inferay.engine.resources.rest_base import Body, Resource, TimeoutDuration


class EndpointDefaultsBody(Body):
    """`defaults` of a batch endpoint."""

    deployment_name: Name | None = None


class BatchEndpointProperties(Body):
    """`properties` of a batch endpoint."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"scoringUri", "swaggerUri", "provisioningState"}
    )
    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"keys", "publicNetworkAccess"})

    auth_mode: AuthMode = "aad_token"
    description: Text | None = None
    properties: TextMap = Field(default_factory=dict)
    defaults: EndpointDefaultsBody = Field(default_factory=EndpointDefaultsBody)


class BatchEndpointBody(Resource):
    """A batch endpoint."""

    tags: TextMap = Field(default_factory=dict)
    properties: BatchEndpointProperties


class CodeConfigurationBody(Body):
    """Which uploaded code, and the script in it."""

    code_id: FilledText
    scoring_script: InnerPath


class AssetReferenceBody(Body):
    """A model by its id."""

    reference_type: Annotated[Literal["Id"], BeforeValidator(choice("Id"))] = "Id"
    asset_id: ModelReference


class RetrySettingsBody(Body):
    """Retries and the time-out of one attempt, in seconds once read."""

    max_retries: Retries = 3
    timeout: TimeoutDuration = 30


class ResourcesBody(Body):
    """Instances of a job."""

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset(
        {"dockerArgs", "shmSize", "locations", "maxInstanceCount"}
    )

    instance_count: InstanceCount = 1
    instance_type: FilledText | None = None
    properties: JsonMap = Field(default_factory=dict)


class BatchDeploymentProperties(Body):
    """`properties` of a batch deployment."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset({"provisioningState", "error"})

    code_configuration: CodeConfigurationBody | None = None
    description: Text | None = None
    environment_id: EnvironmentReference | None = None
    environment_variables: Variables = Field(default_factory=dict)
    properties: TextMap = Field(default_factory=dict)
    compute: ComputeReference | None = None
    error_threshold: ErrorThreshold = -1
    logging_level: LoggingLevel = "info"
    max_concurrency_per_instance: Concurrency = 1
    mini_batch_size: MiniBatchSize = 10
    split: Split = "auto"
    model: AssetReferenceBody | None = None
    output_action: OutputAction = "append_row"
    output_file_name: OutputFileName = "predictions.csv"
    resources: ResourcesBody = Field(default_factory=ResourcesBody)
    retry_settings: RetrySettingsBody = Field(default_factory=RetrySettingsBody)
    deployment_configuration: JsonMap | None = None

    @classmethod
    def refuse_kind(cls, data: Mapping[str, Any]) -> None:
        """Refuse a pipeline component deployment."""
        configuration = data.get("deploymentConfiguration")
        if isinstance(configuration, Mapping):
            kind = configuration.get("deploymentConfigurationType", "Model")
            if str(kind).lower() != "model":
                raise refusal(PIPELINE_REFUSAL, at=("deploymentConfiguration",))


class BatchDeploymentBody(Resource):
    """A batch deployment."""

    tags: TextMap = Field(default_factory=dict)
    properties: BatchDeploymentProperties


class _AssetProperties(Body):
    READ_ONLY: ClassVar[frozenset[str]] = frozenset({"provisioningState"})
    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"stage", "datasets", "autoDeleteSetting"})

    description: Text | None = None
    properties: TextMap = Field(default_factory=dict)
    tags: TextMap = Field(default_factory=dict)
    is_anonymous: StrictBool = False
    is_archived: StrictBool = False


class ModelVersionProperties(_AssetProperties):
    """`properties` of a model version."""

    flavors: dict[str, JsonMap] = Field(default_factory=dict)
    job_name: Text | None = None
    model_type: ModelType = "custom_model"
    model_uri: FilledText


class ModelVersionBody(Resource):
    """A model version."""

    properties: ModelVersionProperties


class DataVersionProperties(_AssetProperties):
    """`properties` of a data version."""

    data_type: DataType = "uri_folder"
    data_uri: FilledText


class DataVersionBody(Resource):
    """A data version."""

    properties: DataVersionProperties


class BuildContextBody(Body):
    """An uploaded folder with a Dockerfile."""

    context_uri: FilledText
    dockerfile_path: InnerPath = "Dockerfile"


class RouteBody(Body):
    """Where a container answers."""

    path: FilledText
    port: Port


class InferenceConfigBody(Body):
    """The routes of a container of the user's own."""

    liveness_route: RouteBody | None = None
    readiness_route: RouteBody | None = None
    scoring_route: RouteBody | None = None
    startup_route: RouteBody | None = None


class EnvironmentVersionProperties(_AssetProperties):
    """`properties` of an environment version; `conda_file` is YAML text."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset({"provisioningState", "environmentType"})
    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"stage", "autoRebuild"})

    image: FilledText | None = None
    conda_file: Annotated[str, Field(max_length=1024 * 1024, strict=True)] | None = None
    build: BuildContextBody | None = None
    inference_config: InferenceConfigBody | None = None
    os_type: Annotated[Literal["linux"], BeforeValidator(choice("linux"))] = "linux"


class EnvironmentVersionBody(Resource):
    """An environment version."""

    properties: EnvironmentVersionProperties


class CodeVersionProperties(_AssetProperties):
    """`properties` of a code version."""

    code_uri: FilledText


class CodeVersionBody(Resource):
    """A code version."""

    properties: CodeVersionProperties
