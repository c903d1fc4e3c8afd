"""Routes of batch endpoints, their deployments, computes and datastores."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from sqlalchemy import select

from inferay.control import endpoints as service
from inferay.control.routes.common import (
    PAGE,
    Admin,
    Ctx,
    Json,
    Reader,
    body_of,
    operation_answer,
    settle,
)
from inferay.control.tables import Compute, Datastore, Deployment, Endpoint
from inferay.control.views import compute_view, datastore_view, deployment_view, endpoint_view
from inferay.engine.resources import (
    BatchDeploymentBody,
    BatchEndpointBody,
    ComputeBody,
    DatastoreBody,
)
from inferay.errors import Conflict, NotFound, nearest

router = APIRouter(prefix="/v1")


@router.get("/batchEndpoints")
def list_endpoints(context: Ctx, who: Reader) -> dict[str, Any]:
    """Return the batch endpoints, by name."""
    with context.database.read() as session:
        query = select(Endpoint).where(Endpoint.kind == "batch")
        rows = session.scalars(query.order_by(Endpoint.name).limit(PAGE))
        return {"value": [endpoint_view(row, context.url) for row in rows]}


@router.get("/batchEndpoints/{name}")
def get_endpoint(context: Ctx, who: Reader, name: str) -> dict[str, Any]:
    """Return a batch endpoint."""
    with context.database.read() as session:
        return endpoint_view(service.get_endpoint(session, name), context.url)


@router.put("/batchEndpoints/{name}", openapi_extra=body_of(BatchEndpointBody))
def put_endpoint(context: Ctx, who: Admin, name: str, body: Json) -> Response:
    """Create or replace a batch endpoint."""
    with context.database.write() as session:
        _, operation, is_new = service.put_endpoint(session, name, body)
    operation = settle(context, operation)
    with context.database.read() as session:
        view = endpoint_view(session.get_one(Endpoint, name), context.url)
    return operation_answer(context, operation, view, is_new=is_new)


@router.delete("/batchEndpoints/{name}")
def delete_endpoint(context: Ctx, who: Admin, name: str) -> Response:
    """Delete a batch endpoint and its deployments; cancel its jobs; keep their outputs."""
    with context.database.write() as session:
        operation = service.delete_endpoint(session, name)
    return operation_answer(context, settle(context, operation), None, is_new=False)


@router.get("/batchEndpoints/{endpoint}/deployments")
def list_deployments(context: Ctx, who: Reader, endpoint: str) -> dict[str, Any]:
    """Return an endpoint's deployments, by name."""
    with context.database.read() as session:
        service.get_endpoint(session, endpoint)
        query = select(Deployment).where(Deployment.endpoint == endpoint)
        rows = session.scalars(query.order_by(Deployment.name).limit(PAGE))
        return {"value": [deployment_view(row) for row in rows]}


@router.get("/batchEndpoints/{endpoint}/deployments/{name}")
def get_deployment(context: Ctx, who: Reader, endpoint: str, name: str) -> dict[str, Any]:
    """Return a deployment."""
    with context.database.read() as session:
        return deployment_view(service.get_deployment(session, endpoint, name))


@router.put(
    "/batchEndpoints/{endpoint}/deployments/{name}", openapi_extra=body_of(BatchDeploymentBody)
)
def put_deployment(context: Ctx, who: Admin, endpoint: str, name: str, body: Json) -> Response:
    """Create or replace a deployment."""
    with context.database.write() as session:
        _, operation, is_new = service.put_deployment(context, session, endpoint, name, body)
    operation = settle(context, operation)
    with context.database.read() as session:
        view = deployment_view(session.get_one(Deployment, (endpoint, name)))
    return operation_answer(context, operation, view, is_new=is_new)


@router.delete("/batchEndpoints/{endpoint}/deployments/{name}")
def delete_deployment(context: Ctx, who: Admin, endpoint: str, name: str) -> Response:
    """Delete a deployment; its jobs go on."""
    with context.database.write() as session:
        operation = service.delete_deployment(session, endpoint, name)
    return operation_answer(context, settle(context, operation), None, is_new=False)


@router.get("/computes")
def list_computes(context: Ctx, who: Reader) -> dict[str, Any]:
    """Return the computes, by name."""
    with context.database.read() as session:
        rows = session.scalars(select(Compute).order_by(Compute.name).limit(PAGE))
        return {"value": [compute_view(row) for row in rows]}


@router.get("/computes/{name}")
def get_compute(context: Ctx, who: Reader, name: str) -> dict[str, Any]:
    """Return a compute."""
    with context.database.read() as session:
        row = session.get(Compute, name)
        if row is None:
            hint = nearest(name, session.scalars(select(Compute.name)))
            raise NotFound(f"there is no compute '{name}'{hint}", target=name)
        return compute_view(row)


@router.put("/computes/{name}", openapi_extra=body_of(ComputeBody))
def put_compute(context: Ctx, who: Admin, name: str, body: Json) -> Response:
    """Create or replace a compute."""
    with context.database.write() as session:
        row, is_new = service.put_compute(session, name, body)
    return JSONResponse(compute_view(row), status_code=201 if is_new else 200)


@router.delete("/computes/{name}", status_code=204)
def delete_compute(context: Ctx, who: Admin, name: str) -> None:
    """Delete a compute; deployments that name it run on this machine."""
    with context.database.write() as session:
        row = session.get(Compute, name)
        if row is None:
            raise NotFound(f"there is no compute '{name}'", target=name)
        session.delete(row)


@router.get("/datastores")
def list_datastores(context: Ctx, who: Reader) -> dict[str, Any]:
    """Return the datastores, by name."""
    with context.database.read() as session:
        rows = session.scalars(select(Datastore).order_by(Datastore.name).limit(PAGE))
        return {"value": [datastore_view(row) for row in rows]}


@router.get("/datastores/{name}")
def get_datastore(context: Ctx, who: Reader, name: str) -> dict[str, Any]:
    """Return a datastore."""
    with context.database.read() as session:
        row = session.get(Datastore, name)
        if row is None:
            hint = nearest(name, session.scalars(select(Datastore.name)))
            raise NotFound(f"there is no datastore '{name}'{hint}", target=name)
        return datastore_view(row)


@router.put("/datastores/{name}", openapi_extra=body_of(DatastoreBody))
def put_datastore(context: Ctx, who: Admin, name: str, body: Json) -> Response:
    """Create or replace a datastore."""
    with context.database.write() as session:
        row, is_new = service.put_datastore(context, session, name, body)
    return JSONResponse(datastore_view(row), status_code=201 if is_new else 200)


@router.delete("/datastores/{name}", status_code=204)
def delete_datastore(context: Ctx, who: Admin, name: str) -> None:
    """Delete a datastore's entry; what lies in it stays."""
    with context.database.write() as session:
        row = session.get(Datastore, name)
        if row is None:
            raise NotFound(f"there is no datastore '{name}'", target=name)
        if row.is_builtin:
            raise Conflict(f"the datastore '{name}' is the workspace's own and cannot be deleted")
        session.delete(row)
