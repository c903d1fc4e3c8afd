"""Rows as REST answers, with Azure's names and shapes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from inferay.control.tables import (
    Asset,
    Compute,
    Datastore,
    Deployment,
    Endpoint,
    Job,
    Operation,
    Timed,
    Token,
)
from inferay.engine.resources.rest_convert import camel
from inferay.engine.storage import datastore_uri, is_remote, redacted

#: Parts of a job's progress that a list of jobs does not tell.
_LONG = ("workers", "slowest")

#: Azure's answers name a region.
LOCATION = "local"

#: What stands before every resource id: Azure's ids name a workspace too.
ROOT = "/workspaces/default"


def online_endpoint_view(row: Endpoint, url: str) -> dict[str, Any]:
    """Return an online endpoint; Azure's SDK needs its two rules."""
    address = f"{url}/endpoints/{row.name}"
    properties = row.properties | {
        "scoringUri": f"{address}/score",
        "swaggerUri": f"{address}/swagger.json",
        "provisioningState": row.state,
    }
    view = _resource(row, f"onlineEndpoints/{row.name}", row.name, properties, row.tags)
    return view | {"kind": "Managed", "location": LOCATION}


def online_deployment_view(row: Deployment) -> dict[str, Any]:
    """Return an online deployment, with its error if it failed and its notices."""
    properties = row.properties | {"provisioningState": row.state}
    if row.error is not None:
        properties["error"] = row.error
    path = f"onlineEndpoints/{row.endpoint}/deployments/{row.name}"
    return _resource(row, path, row.name, properties, row.tags) | {
        "sku": {"name": "Default", "capacity": row.instances}, "location": LOCATION,
        "notices": row.notices,
    }


def endpoint_view(row: Endpoint, url: str) -> dict[str, Any]:
    """Return a batch endpoint."""
    properties = row.properties | {
        "scoringUri": f"{url}/endpoints/{row.name}/jobs",
        "swaggerUri": f"{url}/openapi.json",
        "provisioningState": row.state,
        "defaults": row.properties.get("defaults") or {},
    }
    return _resource(row, f"batchEndpoints/{row.name}", row.name, properties, row.tags)


def deployment_view(row: Deployment) -> dict[str, Any]:
    """Return a deployment, with its error if it failed and its notices."""
    properties = row.properties | {"provisioningState": row.state}
    if row.error is not None:
        properties["error"] = row.error
    path = f"batchEndpoints/{row.endpoint}/deployments/{row.name}"
    return _resource(row, path, row.name, properties, row.tags) | {"notices": row.notices}


def asset_view(row: Asset) -> dict[str, Any]:
    """Return a version of an asset."""
    properties = row.properties | {
        "provisioningState": row.state, "isArchived": row.is_archived,
    }
    told = {
        "inferay.mlflow_version": row.mlflow_version, "inferay.mlflow_notice": row.mlflow_notice,
        "inferay.labels": " ".join(row.labels or []),
    }
    properties["properties"] = (properties.get("properties") or {}) | {
        name: value for name, value in told.items() if value
    }
    if row.error is not None:
        properties["error"] = row.error
    if row.content_hash is not None:
        properties["contentHash"] = row.content_hash
    path = f"{row.kind}/{row.name}/versions/{row.version}"
    return _resource(row, path, row.version, properties)


def datastore_view(row: Datastore) -> dict[str, Any]:
    """Return a datastore; its secrets are not in its row."""
    is_default = {"isDefault": row.name == "workspaceblobstore"}
    return _resource(row, f"datastores/{row.name}", row.name, row.properties | is_default)


def compute_view(row: Compute) -> dict[str, Any]:
    """Return a compute."""
    ready = {"provisioningState": "Succeeded"}
    properties = {k: v for k, v in row.properties.items() if k != "tags"} | ready
    tags = row.properties.get("tags", {})
    return _resource(row, f"computes/{row.name}", row.name, properties, tags)


def job_view(row: Job, url: str, *, is_brief: bool = False) -> dict[str, Any]:
    """Return a job: Azure's fields, and how far it is; briefly, without its single workers."""
    progress = row.progress
    if progress is not None and is_brief:
        progress = {key: value for key, value in progress.items() if key not in _LONG}
    body = row.request["properties"]
    properties = {
        "jobType": "Batch",
        "status": row.status,
        "displayName": row.name,
        "experimentName": body.get("properties", {}).get("experimentName") or row.endpoint,
        "endpointName": row.endpoint,
        "deploymentName": row.deployment,
        "inputs": _redacted(body.get("inputData", {})),
        "outputs": {"score": {
            "jobOutputType": "UriFolder", "uri": _output_uri(row), "path": row.output,
        }},
        "tags": body.get("tags", {}),
        "properties": body.get("properties", {}),
        "description": body.get("description"),
        "services": {"Studio": {"endpoint": f"{url}/v1/jobs/{row.name}"}},
        "redriveOf": row.request.get("redriveOf"),
        "resumes": max(0, row.epoch - 1),
        "startTime": _time(row.created_at),
        "endTime": _time(row.ended_at),
        "waitingFor": row.waiting_for,
        "progress": _camel_keys(progress),
        "error": row.error,
    }
    return _resource(row, f"jobs/{row.name}", row.name, properties)


def operation_view(row: Operation) -> dict[str, Any]:
    """Return an operation as Azure's pollers read it."""
    status = {"Running": "InProgress"}.get(row.status, row.status)
    view = {
        "id": f"{ROOT}/operations/{row.id}", "name": row.id, "status": status, "kind": row.kind,
        "target": row.target, "startTime": _time(row.created_at), "endTime": _time(row.modified_at),
    }
    return view if row.error is None else view | {"error": row.error}


def token_view(row: Token) -> dict[str, Any]:
    """Return a token without its secret, which is kept nowhere."""
    return {
        "name": row.name, "role": row.role, "endpoint": row.endpoint,
        "createdAt": _time(row.created_at), "expiresAt": _time(row.expires_at),
    }


def _output_uri(row: Job) -> str:
    default = f"azureml/{row.name}/score"
    is_default = row.output.endswith(f"workspaceblobstore/{default}")
    if is_default:
        return datastore_uri("workspaceblobstore", default)
    return row.output if is_remote(row.output) else f"file://{row.output}"


def _resource(
    row: Timed, path: str, name: str, properties: dict[str, Any],
    tags: dict[str, Any] | None = None,
) -> dict[str, Any]:
    kind = "Microsoft.MachineLearningServices/workspaces/" + "/".join(path.split("/")[::2])
    return {
        "id": f"{ROOT}/{path}", "name": name, "type": kind,
        **({} if tags is None else {"tags": tags}),
        "properties": properties,
        "systemData": {
            "createdAt": _time(row.created_at), "lastModifiedAt": _time(row.modified_at),
        },
    }


def _redacted(value: Any) -> Any:
    """Return an invocation's inputs without signatures in their URIs."""
    if isinstance(value, dict):
        return {key: _redacted(inner) for key, inner in value.items()}
    return redacted(value) if isinstance(value, str) else value


def _camel_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {camel(key): _camel_keys(inner) for key, inner in value.items()}
    return [_camel_keys(inner) for inner in value] if isinstance(value, list) else value


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds") + "Z"
