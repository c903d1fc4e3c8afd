"""Endpoints, deployments, computes and datastores: putting and deleting them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from inferay.config import ARTIFACT_DATASTORE, BLOB_DATASTORE, Workspace
from inferay.control import storage
from inferay.control.context import Context
from inferay.control.environments import build_environment, surroundings
from inferay.control.notices import deployment_notices
from inferay.control.online import check_kind
from inferay.control.operations import Steps, begin
from inferay.control.scored import scored_by
from inferay.control.tables import Compute, Datastore, Deployment, Endpoint, Job, Operation, now
from inferay.engine.batch.formats import check_format
from inferay.engine.resources import (
    BatchDeployment,
    BatchEndpoint,
    Entity,
    from_rest,
    to_rest,
)
from inferay.engine.resources import Compute as ComputeEntity
from inferay.engine.resources import Datastore as DatastoreEntity
from inferay.engine.resources.wording import shown
from inferay.engine.storage.azure import check_package
from inferay.errors import Conflict, InferayError, InvalidInput, NotFound, nearest
from inferay.jobs.states import JobStatus


def put_endpoint(
    session: Session, name: str, body: Mapping[str, Any]
) -> tuple[Endpoint, Operation, bool]:
    """Create or replace an endpoint, in the caller's transaction.

    Returns:
        The row, its operation, and whether it is new.

    Raises:
        InvalidInput: The name or the body is wrong, or its default deployment does not exist.
        Conflict: An online endpoint has the name.
    """
    entity = from_rest(BatchEndpoint, name, body)
    row = session.get(Endpoint, name)
    if row is not None:
        check_kind(row, "batch")
    default = entity.defaults.deployment_name
    if default is not None and session.get(Deployment, (name, default)) is None:
        raise InvalidInput(
            f"defaults.deployment_name: endpoint '{name}' has no deployment '{default}'",
            target="/properties/defaults/deploymentName",
        )
    is_new = row is None
    row = row or Endpoint(name=name, kind="batch")
    row.tags, row.properties = dict(entity.tags), _properties(entity)
    row.state = "Creating" if is_new else "Updating"
    row.modified_at = now()
    session.add(row)
    return row, begin(session, "endpoint.put", f"batchEndpoints/{name}", {"name": name}), is_new


def put_deployment(
    context: Context, session: Session, endpoint: str, name: str, body: Mapping[str, Any]
) -> tuple[Deployment, Operation, bool]:
    """Create or replace a deployment, in the caller's transaction.

    Returns:
        The row, its operation, and whether it is new.

    Raises:
        InvalidInput: The name or the body is wrong.
        NotFound: The endpoint, or an asset that the body names, does not exist.
    """
    get_endpoint(session, endpoint)
    entity = from_rest(BatchDeployment, name, body, endpoint_name=endpoint)
    check_format(entity.settings.output_file_name)
    environment = surroundings(session, entity, scored_by(session, entity))
    notices = deployment_notices(context, session, entity) + environment.notices
    row = session.get(Deployment, (endpoint, name))
    is_new = row is None
    row = row or Deployment(endpoint=endpoint, name=name)
    row.tags, row.properties = dict(entity.tags), _properties(entity)
    row.state = "Creating" if is_new else "Updating"
    row.error, row.notices = None, notices
    row.modified_at = now()
    session.add(row)
    target = f"batchEndpoints/{endpoint}/deployments/{name}"
    payload = {
        "endpoint": endpoint, "name": name,
        "environment": environment.spec and environment.spec.to_dict(),
    }
    return row, begin(session, "deployment.put", target, payload), is_new


def put_compute(session: Session, name: str, body: Mapping[str, Any]) -> tuple[Compute, bool]:
    """Create or replace a compute.

    Raises:
        InvalidInput: The name or the body is wrong.
    """
    entity = from_rest(ComputeEntity, name, body)
    if entity.min_instances > entity.max_instances:
        raise InvalidInput(
            f"min_instances: expected at most max_instances ({entity.max_instances}), got "
            f"{entity.min_instances}",
            target="/properties/properties/scaleSettings/minNodeCount",
        )
    row = session.get(Compute, name)
    is_new = row is None
    row = row or Compute(name=name)
    row.properties = _properties(entity) | {"tags": dict(entity.tags)}
    session.add(row)
    return row, is_new


def put_datastore(
    context: Context, session: Session, name: str, body: Mapping[str, Any]
) -> tuple[Datastore, bool]:
    """Create or replace a datastore.

    Raises:
        InvalidInput: The name or the body is wrong, or what speaks to Azure is not installed.
        Conflict: It is one of the workspace's own, or another one has the same place.
    """
    entity = from_rest(DatastoreEntity, name, body)
    if entity.type == "azure_blob":
        check_package()
    row = session.get(Datastore, name)
    if row is not None and row.is_builtin:
        raise Conflict(f"the datastore '{name}' is the workspace's own and cannot be changed")
    is_new = row is None
    row = row or Datastore(name=name)
    row.properties = _properties(entity)
    if entity.type == "local" and not os.path.isabs(str(entity.path)):
        raise InvalidInput(
            f"path: expected an absolute path on the server's machine, got {shown(entity.path)}",
            target="/properties/path",
        )
    if entity.type != "local":
        storage.check_place(session, name, row.properties)
    row.secrets = storage.seal_secrets(context.workspace, entity)
    session.add(row)
    return row, is_new


def ensure_datastores(session: Session, workspace: Workspace) -> None:
    """Make the two datastores that every workspace has; idempotent."""
    for name in (BLOB_DATASTORE, ARTIFACT_DATASTORE):
        folder = workspace.datastores / name
        folder.mkdir(parents=True, exist_ok=True)
        row = session.get(Datastore, name) or Datastore(name=name, is_builtin=True)
        row.properties = {"datastoreType": "Local", "path": str(folder)}
        session.add(row)


def get_endpoint(session: Session, name: str) -> Endpoint:
    """Return an endpoint.

    Raises:
        NotFound: There is none, or it is being deleted.
    """
    row = session.get(Endpoint, name)
    if row is None or row.kind != "batch" or row.state == "Deleting":
        names = session.scalars(select(Endpoint.name).where(Endpoint.kind == "batch"))
        raise NotFound(f"there is no batch endpoint '{name}'{nearest(name, names)}", target=name)
    return row


def get_deployment(session: Session, endpoint: str, name: str) -> Deployment:
    """Return a deployment.

    Raises:
        NotFound: There is none, or no such endpoint.
    """
    get_endpoint(session, endpoint)
    row = session.get(Deployment, (endpoint, name))
    if row is None or row.state == "Deleting":
        names = session.scalars(select(Deployment.name).where(Deployment.endpoint == endpoint))
        raise NotFound(
            f"endpoint '{endpoint}' has no deployment '{name}'{nearest(name, names)}", target=name
        )
    return row


def delete_endpoint(session: Session, name: str) -> Operation:
    """Begin to delete an endpoint with its deployments; its jobs are canceled, their outputs stay.

    Raises:
        NotFound: There is none.
    """
    get_endpoint(session, name).state = "Deleting"
    return begin(session, "endpoint.delete", f"batchEndpoints/{name}", {"name": name})


def delete_deployment(session: Session, endpoint: str, name: str) -> Operation:
    """Begin to delete a deployment; its jobs go on, for their spec is frozen.

    Raises:
        NotFound: There is none.
        Conflict: It is the endpoint's default.
    """
    row = get_deployment(session, endpoint, name)
    defaults = get_endpoint(session, endpoint).properties.get("defaults") or {}
    others = session.scalars(
        select(Deployment.name).where(Deployment.endpoint == endpoint, Deployment.name != name)
    ).all()
    if defaults.get("deploymentName") == name and others:
        raise Conflict(
            f"'{name}' is the default deployment of '{endpoint}'; make another one the default "
            f"first: inferay batch-endpoint update -n {endpoint} --defaults "
            f"deployment_name={others[0]}",
            target=name,
        )
    row.state = "Deleting"
    target = f"batchEndpoints/{endpoint}/deployments/{name}"
    return begin(session, "deployment.delete", target, {"endpoint": endpoint, "name": name})


def add_steps(steps: Steps) -> None:
    """Say how endpoints and deployments are put and deleted."""
    steps.add("endpoint.put", [_activate_endpoint], _on_endpoint_failure)
    steps.add(
        "deployment.put", [build_environment, _activate_deployment], _on_deployment_failure
    )
    steps.add("endpoint.delete", [_cancel_jobs, _drop_endpoint], _on_endpoint_failure)
    steps.add("deployment.delete", [_drop_deployment], _on_deployment_failure)


def _activate_endpoint(context: Context, operation: Operation) -> None:
    with context.database.write() as session:
        session.get_one(Endpoint, operation.payload["name"]).state = "Succeeded"


def _activate_deployment(context: Context, operation: Operation) -> None:
    key = (operation.payload["endpoint"], operation.payload["name"])
    with context.database.write() as session:
        session.get_one(Deployment, key).state = "Succeeded"


def _cancel_jobs(context: Context, operation: Operation) -> None:
    with context.database.write() as session:
        live = select(Job).where(Job.endpoint == operation.payload["name"], Job.ended_at.is_(None))
        for job in session.scalars(live):
            job.is_cancel_wanted = True
            job.status = JobStatus.CANCEL_REQUESTED
    context.wake.set()


def _drop_endpoint(context: Context, operation: Operation) -> None:
    name = operation.payload["name"]
    with context.database.write() as session:
        session.execute(delete(Deployment).where(Deployment.endpoint == name))
        session.execute(delete(Endpoint).where(Endpoint.name == name))


def _drop_deployment(context: Context, operation: Operation) -> None:
    endpoint, name = operation.payload["endpoint"], operation.payload["name"]
    with context.database.write() as session:
        session.execute(delete(Deployment).where(
            Deployment.endpoint == endpoint, Deployment.name == name
        ))
        row = session.get(Endpoint, endpoint)
        if row is not None and (row.properties.get("defaults") or {}).get("deploymentName") == name:
            row.properties = row.properties | {"defaults": {}}


def _on_endpoint_failure(session: Session, operation: Operation, error: InferayError) -> None:
    row = session.get(Endpoint, operation.payload["name"])
    if row is not None:
        row.state = "Failed"


def _on_deployment_failure(session: Session, operation: Operation, error: InferayError) -> None:
    row = session.get(Deployment, (operation.payload["endpoint"], operation.payload["name"]))
    if row is not None:
        row.state, row.error = "Failed", error.as_dict()


def _properties(entity: Entity) -> dict[str, Any]:
    """Return the REST properties as they are kept: canonical, with the defaults filled in."""
    properties: dict[str, Any] = to_rest(entity)["properties"]   # type: ignore[assignment]
    return properties
