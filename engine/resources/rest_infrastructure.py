"""Datastores and computes as REST bodies, and between those and the entities."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from inferay.engine.resources.durations import format_duration
from inferay.engine.resources.fields import FilledText, InstanceBound, Secret, Text, TextMap, choice
from inferay.engine.resources.infrastructure import (
    Compute,
    ComputeType,
    Datastore,
    DatastoreCredentials,
    DatastoreType,
    Tier,
)
from inferay.engine.resources.rest_base import WIRE_WORDS, Body, IdleDuration, Ids, Resource, filled


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

    datastore_type: DatastoreType
    description: Text | None = None
    properties: TextMap = Field(default_factory=dict)
    tags: TextMap = Field(default_factory=dict)
    credentials: DatastoreCredentialsBody = Field(default_factory=DatastoreCredentialsBody)
    path: FilledText | None = None
    account_name: FilledText | None = None
    container_name: FilledText | None = None
    endpoint: FilledText | None = None
    protocol: FilledText | None = None
    bucket: FilledText | None = None
    prefix: FilledText | None = None
    endpoint_url: FilledText | None = None
    region: FilledText | None = None


class DatastoreBody(Resource):
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

    compute_type: ComputeType
    description: Text | None = None
    metadata: TextMap = Field(default_factory=dict)
    properties: PoolProperties = Field(default_factory=PoolProperties)


class ComputeBody(Resource):
    """A compute."""

    tags: TextMap = Field(default_factory=dict)
    properties: ComputeProperties


_DATASTORE_FIELDS = {
    "path": "path",
    "accountName": "account_name",
    "containerName": "container_name",
    "endpoint": "endpoint",
    "protocol": "protocol",
    "bucket": "bucket",
    "prefix": "prefix",
    "endpointUrl": "endpoint_url",
    "region": "region",
}


def write_datastore(entity: Datastore, ids: Ids) -> dict[str, Any]:
    """Return the body of a datastore, without secrets unless they are asked for."""
    places = {wire: getattr(entity, name) for wire, name in _DATASTORE_FIELDS.items()}
    properties = filled(
        datastoreType=WIRE_WORDS[entity.type],
        description=entity.description,
        tags=dict(entity.tags),
        properties=dict(entity.properties),
        credentials=_write_credentials(entity.credentials, ids.show_secrets),
        **places,
    )
    return {"properties": properties}


def _write_credentials(
    credentials: DatastoreCredentials | None, show_secrets: bool
) -> dict[str, Any]:
    if credentials is None:
        return {"credentialsType": "None"}
    kinds = {
        "AccountKey": credentials.account_key,
        "Sas": credentials.sas_token,
        "ServicePrincipal": credentials.client_secret,
        "AccessKey": credentials.secret_access_key,
    }
    kind = next((name for name, secret in kinds.items() if secret is not None), "None")
    result = filled(
        credentialsType=kind,
        tenantId=credentials.tenant_id,
        clientId=credentials.client_id,
        accessKeyId=credentials.access_key_id,
    )
    if show_secrets and kind != "None":
        secrets = {
            "key": credentials.account_key,
            "sasToken": credentials.sas_token,
            "clientSecret": credentials.client_secret,
            "secretAccessKey": credentials.secret_access_key,
            "sessionToken": credentials.session_token,
        }
        shown = {name: item.get_secret_value() for name, item in secrets.items() if item}
        result["secrets"] = {"secretsType": kind, **shown}
    return result


def read_datastore(body: DatastoreBody) -> dict[str, Any]:
    """Return the fields of a datastore."""
    properties = body.properties
    return {
        "description": properties.description,
        "tags": properties.tags,
        "properties": properties.properties,
        **{name: getattr(properties, name) for name in _DATASTORE_FIELDS.values()},
        "type": properties.datastore_type,
        "credentials": _read_credentials(properties.credentials),
    }


def _read_credentials(body: DatastoreCredentialsBody) -> dict[str, Any] | None:
    secrets = body.secrets
    fields = filled(
        account_key=secrets.key,
        sas_token=secrets.sas_token,
        tenant_id=body.tenant_id,
        client_id=body.client_id,
        client_secret=secrets.client_secret,
        access_key_id=body.access_key_id,
        secret_access_key=secrets.secret_access_key,
        session_token=secrets.session_token,
    )
    return fields or None


def write_compute(entity: Compute, ids: Ids) -> dict[str, Any]:
    """Return the body of a compute."""
    pool = filled(
        vmSize=entity.size,
        vmPriority=WIRE_WORDS[entity.tier],
        namespace=entity.namespace,
        scaleSettings={
            "minNodeCount": entity.min_instances,
            "maxNodeCount": entity.max_instances,
            "nodeIdleTimeBeforeScaleDown": format_duration(entity.idle_time_before_scale_down),
        },
    )
    properties = filled(
        computeType=WIRE_WORDS[entity.type],
        description=entity.description,
        metadata=dict(entity.properties) or None,
        properties=pool,
    )
    return {"tags": dict(entity.tags), "properties": properties}


def read_compute(body: ComputeBody) -> dict[str, Any]:
    """Return the fields of a compute."""
    properties, pool = body.properties, body.properties.properties
    return {
        "tags": body.tags,
        "type": properties.compute_type,
        "description": properties.description,
        "properties": properties.metadata,
        "size": pool.vm_size,
        "tier": pool.vm_priority,
        "namespace": pool.namespace,
        "min_instances": pool.scale_settings.min_node_count,
        "max_instances": pool.scale_settings.max_node_count,
        "idle_time_before_scale_down": pool.scale_settings.node_idle_time_before_scale_down,
    }
