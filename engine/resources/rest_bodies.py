"""REST bodies with Azure's names, as a client may PUT them.

Every model reads camelCase names in any case (Azure's do, and its documents mix them), drops
nulls, ignores what only a server sets, and refuses what it doesn't know. Durations are read as
whole seconds and enums as the entities' words, so that a parsed body holds the same values as an
entity. The body of a batch invocation is in `rest_jobs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool
from pydantic.alias_generators import to_camel

from inferay.engine.resources.base import Strict
from inferay.engine.resources.deployments import PIPELINE_REFUSAL
from inferay.engine.resources.durations import parse_duration
from inferay.engine.resources.fields import (
    TIMEOUT_S_MAX,
    AuthMode,
    ComputeReference,
    Concurrency,
    DataType,
    EnvironmentReference,
    ErrorThreshold,
    FilledText,
    InnerPath,
    InstanceBound,
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
    Secret,
    Text,
    TextMap,
    Variables,
    choice,
    refusal,
)
from inferay.engine.resources.infrastructure import Tier
from inferay.engine.resources.wording import shown
from inferay.errors import InvalidInput


def _seconds(minimum: int) -> BeforeValidator:
    def check(value: object) -> int:
        try:
            seconds = parse_duration(value) if isinstance(value, str) else -1.0
        except InvalidInput:
            seconds = -1.0
        if minimum <= seconds <= TIMEOUT_S_MAX and seconds == int(seconds):
            return int(seconds)
        raise refusal(
            f"expected a duration of whole seconds from PT{minimum}S to P7D, got {shown(value)}"
        )

    return BeforeValidator(check)


TimeoutDuration = Annotated[int, _seconds(1)]
IdleDuration = Annotated[int, _seconds(0)]


class Body(Strict):
    """Camel-case names, in any case; nulls count as left out."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    @classmethod
    def canonical(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data with the names as Azure writes them, without nulls and ignored ones."""
        known = {str(field.alias) for field in cls.model_fields.values()}
        by_lower = {name.lower(): name for name in known | cls.NO_EFFECT | cls.READ_ONLY}
        result: dict[str, Any] = {}
        for key, value in data.items():
            name = by_lower.get(key.lower(), key) if isinstance(key, str) else str(key)
            if name in result:
                raise refusal("given twice, in different case; expected it once", at=(name,))
            if value is not None:
                result[name] = value
        return super().canonical(result)


class _Resource(Body):
    READ_ONLY: ClassVar[frozenset[str]] = frozenset({"id", "name", "type", "systemData", "etag"})
    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"location", "identity", "kind", "sku"})


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


class BatchEndpointBody(_Resource):
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


class BatchDeploymentBody(_Resource):
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


class ModelVersionBody(_Resource):
    """A model version."""

    properties: ModelVersionProperties


class DataVersionProperties(_AssetProperties):
    """`properties` of a data version."""

    data_type: DataType = "uri_folder"
    data_uri: FilledText


class DataVersionBody(_Resource):
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


class EnvironmentVersionBody(_Resource):
    """An environment version."""

    properties: EnvironmentVersionProperties


class CodeVersionProperties(_AssetProperties):
    """`properties` of a code version."""

    code_uri: FilledText


class CodeVersionBody(_Resource):
    """A code version."""

    properties: CodeVersionProperties


class DatastoreSecretsBody(Body):
    """The secret part of credentials; masked in repr."""

    secrets_type: FilledText | None = None
    key: Secret | None = None
    sas_token: Secret | None = None
    client_secret: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None


CredentialsType = Annotated[
    Literal["None", "AccountKey", "Sas", "ServicePrincipal", "AccessKey"],
    BeforeValidator(choice("None", "AccountKey", "Sas", "ServicePrincipal", "AccessKey")),
]


class DatastoreCredentialsBody(Body):
    """How a datastore is reached; `AccessKey` (for S3) is ours."""

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"authorityUrl", "resourceUrl"})

    credentials_type: CredentialsType = "None"
    tenant_id: Text | None = None
    client_id: Text | None = None
    access_key_id: Text | None = None
    secrets: DatastoreSecretsBody = Field(default_factory=DatastoreSecretsBody)


class DatastoreProperties(Body):
    """`properties` of a datastore; the types `Local` and `S3` are ours."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset({"isDefault"})
    NO_EFFECT: ClassVar[frozenset[str]] = frozenset(
        {"resourceGroup", "subscriptionId", "serviceDataAccessAuthIdentity"}
    )

    datastore_type: Annotated[
        Literal["local", "azure_blob", "s3"], BeforeValidator(choice("local", "azure_blob", "s3"))
    ]
    description: Text | None = None
    properties: TextMap = Field(default_factory=dict)
    tags: TextMap = Field(default_factory=dict)
    credentials: DatastoreCredentialsBody = Field(default_factory=DatastoreCredentialsBody)
    path: FilledText | None = None
    account_name: FilledText | None = None
    container_name: FilledText | None = None
    endpoint: FilledText | None = None
    protocol: FilledText | None = None
    bucket_name: FilledText | None = None
    region: FilledText | None = None


class DatastoreBody(_Resource):
    """A datastore."""

    properties: DatastoreProperties


class ScaleSettingsBody(Body):
    """Bounds of a pool; the idle time in seconds once read."""

    max_node_count: InstanceBound = 4
    min_node_count: InstanceBound = 0
    node_idle_time_before_scale_down: IdleDuration = 120


class PoolProperties(Body):
    """`properties.properties` of a compute: AmlCompute's and Kubernetes' together."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset(
        {
            "allocationState", "allocationStateTransitionTime", "errors", "currentNodeCount",
            "targetNodeCount", "nodeStateCounts",
        }
    )  # fmt: skip
    NO_EFFECT: ClassVar[frozenset[str]] = frozenset(
        {
            "osType", "virtualMachineImage", "isolatedNetwork", "userAccountCredentials", "subnet",
            "remoteLoginPortPublicAccess", "enableNodePublicIp", "propertyBag",
            "relayConnectionString", "serviceBusConnectionString", "extensionPrincipalId",
            "extensionInstanceReleaseTrain", "vcName", "defaultInstanceType", "instanceTypes",
        }
    )  # fmt: skip

    vm_size: FilledText = "Standard_DS3_v2"
    vm_priority: Tier = "dedicated"
    scale_settings: ScaleSettingsBody = Field(default_factory=ScaleSettingsBody)
    namespace: FilledText | None = None


class ComputeProperties(Body):
    """`properties` of a compute; `metadata` is ours and holds the entity's own properties."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"provisioningState", "createdOn", "modifiedOn", "provisioningErrors", "error"}
    )
    NO_EFFECT: ClassVar[frozenset[str]] = frozenset(
        {"computeLocation", "resourceId", "isAttachedCompute", "disableLocalAuth"}
    )

    compute_type: Annotated[
        Literal["amlcompute", "kubernetes"], BeforeValidator(choice("amlcompute", "kubernetes"))
    ]
    description: Text | None = None
    metadata: TextMap = Field(default_factory=dict)
    properties: PoolProperties = Field(default_factory=PoolProperties)


class ComputeBody(_Resource):
    """A compute."""

    tags: TextMap = Field(default_factory=dict)
    properties: ComputeProperties
