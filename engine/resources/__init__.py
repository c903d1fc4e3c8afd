"""What users declare: entities, YAML files, REST bodies, references and instance types.

Light to import: pydantic and PyYAML, nothing of Ray or of the web.
"""

from __future__ import annotations

from inferay.engine.resources.assets import (
    Asset,
    BuildContext,
    Code,
    Data,
    Environment,
    InferenceConfig,
    Model,
    Route,
)
from inferay.engine.resources.base import Entity
from inferay.engine.resources.deployments import (
    BatchDeployment,
    BatchSettings,
    CodeConfiguration,
    CommonDeployment,
    Resources,
    RetrySettings,
)
from inferay.engine.resources.durations import format_duration, parse_duration
from inferay.engine.resources.endpoints import BatchEndpoint, CommonEndpoint, EndpointDefaults
from inferay.engine.resources.facts import CreationContext, ServerFacts
from inferay.engine.resources.infrastructure import Compute, Datastore, DatastoreCredentials
from inferay.engine.resources.instance_types import (
    INSTANCE_TYPES,
    InstanceType,
    gpu_share,
    instance_type,
)
from inferay.engine.resources.loading import Loaded, load
from inferay.engine.resources.local_paths import resolve_local_paths
from inferay.engine.resources.online import (
    OnlineDeployment,
    OnlineEndpoint,
    Probe,
    RequestSettings,
    ScaleSettings,
)
from inferay.engine.resources.references import (
    DatastorePath,
    Reference,
    is_datastore_path,
    is_local_path,
    is_resource_id,
    parse_datastore_path,
    parse_reference,
)
from inferay.engine.resources.rest import from_rest, parse_body, server_facts, to_rest
from inferay.engine.resources.rest_bodies import (
    BatchDeploymentBody,
    BatchEndpointBody,
    CodeVersionBody,
    DataVersionBody,
    EnvironmentVersionBody,
    ModelVersionBody,
)
from inferay.engine.resources.rest_infrastructure import ComputeBody, DatastoreBody
from inferay.engine.resources.rest_jobs import (
    BatchJobBody,
    BatchJobProperties,
    JobInput,
    JobOutput,
    RedriveBody,
)
from inferay.engine.resources.rest_online import (
    GetLogsBody,
    OnlineDeploymentBody,
    OnlineEndpointBody,
    RegenerateKeysBody,
)
from inferay.engine.resources.yaml_source import YamlDocument, read_yaml

__all__ = [
    "INSTANCE_TYPES",
    "Asset",
    "BatchDeployment",
    "BatchDeploymentBody",
    "BatchEndpoint",
    "BatchEndpointBody",
    "BatchJobBody",
    "BatchJobProperties",
    "BatchSettings",
    "BuildContext",
    "Code",
    "CodeConfiguration",
    "CodeVersionBody",
    "CommonDeployment",
    "CommonEndpoint",
    "Compute",
    "ComputeBody",
    "CreationContext",
    "Data",
    "DataVersionBody",
    "Datastore",
    "DatastoreBody",
    "DatastoreCredentials",
    "DatastorePath",
    "EndpointDefaults",
    "Entity",
    "Environment",
    "EnvironmentVersionBody",
    "GetLogsBody",
    "InferenceConfig",
    "InstanceType",
    "JobInput",
    "JobOutput",
    "Loaded",
    "Model",
    "ModelVersionBody",
    "OnlineDeployment",
    "OnlineDeploymentBody",
    "OnlineEndpoint",
    "OnlineEndpointBody",
    "Probe",
    "RedriveBody",
    "Reference",
    "RegenerateKeysBody",
    "RequestSettings",
    "Resources",
    "RetrySettings",
    "Route",
    "ScaleSettings",
    "ServerFacts",
    "YamlDocument",
    "format_duration",
    "from_rest",
    "gpu_share",
    "instance_type",
    "is_datastore_path",
    "is_local_path",
    "is_resource_id",
    "load",
    "parse_body",
    "parse_datastore_path",
    "parse_duration",
    "parse_reference",
    "read_yaml",
    "resolve_local_paths",
    "server_facts",
    "to_rest",
]
