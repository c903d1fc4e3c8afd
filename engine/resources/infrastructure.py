"""Datastores and computes as users declare them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from inferay.engine.resources.base import Entity, Strict
from inferay.engine.resources.fields import (
    FilledText,
    IdleSeconds,
    InstanceBound,
    Name,
    Secret,
    Text,
    TextMap,
    choice,
    refusal,
)

DatastoreType = Annotated[
    Literal["local", "azure_blob", "s3"], BeforeValidator(choice("local", "azure_blob", "s3"))
]
ComputeType = Annotated[
    Literal["amlcompute", "kubernetes"], BeforeValidator(choice("amlcompute", "kubernetes"))
]
Tier = Annotated[
    Literal["dedicated", "low_priority"], BeforeValidator(choice("dedicated", "low_priority"))
]

#: What each type of datastore must say.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "local": ("path",),
    "azure_blob": ("account_name", "container_name"),
    "s3": ("bucket",),
}


class DatastoreCredentials(Strict):
    """How a datastore is reached; secrets never show in repr, messages or `to_dict()`."""

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"authority_url", "resource_url"})

    account_key: Secret | None = None
    sas_token: Secret | None = None
    tenant_id: Text | None = None
    client_id: Text | None = None
    client_secret: Secret | None = None
    access_key_id: Text | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None


class Datastore(Entity):
    """A named place for files: a local folder, an Azure blob container or an S3 bucket.

    Attributes:
        path: The folder of a local datastore, on the server's machine.
        endpoint: Of Azure's storage: the domain after `blob.`, or the account's whole URL.
        bucket: The bucket of an S3 datastore.
        prefix: Where its paths begin in the bucket or container.
        endpoint_url: Of an S3 service that is not AWS's.
    """

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset(
        {"resourceGroup", "resource_group", "subscription_id", "service_data_access_auth_identity"}
    )
    READ_ONLY: ClassVar[frozenset[str]] = frozenset({"id", "creation_context", "is_default"})

    name: Name
    type: DatastoreType = "local"
    description: Text | None = None
    tags: TextMap = Field(default_factory=dict)
    properties: TextMap = Field(default_factory=dict)
    path: FilledText | None = None
    account_name: FilledText | None = None
    container_name: FilledText | None = None
    endpoint: FilledText | None = None
    protocol: FilledText | None = None
    bucket: FilledText | None = None
    prefix: FilledText | None = None
    endpoint_url: FilledText | None = None
    region: FilledText | None = None
    credentials: DatastoreCredentials | None = None

    @model_validator(mode="after")
    def _has_its_place(self) -> Datastore:
        for field in _NEEDED[self.type]:
            if getattr(self, field) is None:
                raise refusal(f"missing; a datastore of type {self.type} needs it", at=(field,))
        return self


class Compute(Entity):
    """A named pool of instances.

    Attributes:
        size: The instance type, such as Standard_DS3_v2.
        idle_time_before_scale_down: Seconds.
    """

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset(
        {
            "identity", "location", "network_settings", "ssh_settings", "subnet", "vnet_name",
            "ssh_public_access_enabled", "enable_node_public_ip", "resourceGroup", "resource_group",
            "resource_id", "instance_types", "default_instance_type", "created_on",
        }
    )  # fmt: skip
    READ_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"id", "provisioning_state", "provisioning_errors", "creation_context", "error"}
    )
    INERT: ClassVar[frozenset[str]] = frozenset({"tier", "namespace"})

    name: Name
    type: ComputeType = "amlcompute"
    description: Text | None = None
    tags: TextMap = Field(default_factory=dict)
    properties: TextMap = Field(default_factory=dict)
    size: FilledText = "Standard_DS3_v2"
    min_instances: InstanceBound = 0
    max_instances: InstanceBound = 4
    idle_time_before_scale_down: IdleSeconds = 120
    tier: Tier = "dedicated"
    namespace: FilledText | None = None

    @model_validator(mode="after")
    def _has_ordered_bounds(self) -> Compute:
        if self.min_instances > self.max_instances:
            raise refusal(
                f"expected at most max_instances ({self.max_instances}), got {self.min_instances}",
                at=("min_instances",),
            )
        return self
