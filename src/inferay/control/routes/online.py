"""Routes of online endpoints, their credentials, deployments and logs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from sqlalchemy import select

from inferay.control import online as service
from inferay.control.credentials import issue_token, keys_of, utc
from inferay.control.online_logs import read_logs
from inferay.control.online_reports import shadow_report
from inferay.control.routes.common import (
    PAGE,
    Admin,
    Caller,
    Ctx,
    Json,
    OptionalJson,
    Reader,
    body_of,
    operation_answer,
    settle,
)
from inferay.control.tables import Deployment, Endpoint
from inferay.control.views import online_deployment_view, online_endpoint_view
from inferay.engine.resources import (
    GetLogsBody,
    OnlineDeploymentBody,
    OnlineEndpointBody,
    RegenerateKeysBody,
    parse_body,
)
from inferay.serve.mirror.compare import Tolerance
from inferay.serve.mirror.review import WORST

router = APIRouter(prefix="/v1/onlineEndpoints")

#: Pairs that a report may show: a body of each may have 2,000 characters.
WORST_MAX = 100


@router.get("")
def list_endpoints(context: Ctx, who: Reader) -> dict[str, Any]:
    """Return the online endpoints, by name."""
    with context.database.read() as session:
        query = select(Endpoint).where(Endpoint.kind == "online")
        rows = session.scalars(query.order_by(Endpoint.name).limit(PAGE))
        return {"value": [online_endpoint_view(row, context.url) for row in rows]}


@router.get("/{name}")
def get_endpoint(context: Ctx, who: Caller, name: str) -> dict[str, Any]:
    """Return an online endpoint; for whoever may invoke it, too: it says where it answers."""
    who.check_reader_of(name)
    with context.database.read() as session:
        return online_endpoint_view(service.get_endpoint(session, name), context.url)


@router.put("/{name}", openapi_extra=body_of(OnlineEndpointBody))
def put_endpoint(context: Ctx, who: Admin, name: str, body: Json) -> Response:
    """Create or replace an online endpoint; traffic that the body does not name stays."""
    with context.database.write() as session:
        row, operation, is_new = service.put_endpoint(context.workspace, session, name, body)
    operation = settle(context, operation)
    with context.database.read() as session:
        view = online_endpoint_view(session.get(Endpoint, name) or row, context.url)
    return operation_answer(context, operation, view, is_new=is_new)


@router.delete("/{name}")
def delete_endpoint(context: Ctx, who: Admin, name: str) -> Response:
    """Delete an online endpoint and its deployments; its keys and tokens end first."""
    with context.database.write() as session:
        operation = service.delete_endpoint(session, name)
    return operation_answer(context, settle(context, operation), None, is_new=False)


@router.post("/{name}/listKeys")
def list_keys(context: Ctx, who: Admin, name: str) -> dict[str, Any]:
    """Return the keys of an endpoint that keys open."""
    with context.database.read() as session:
        keys = keys_of(context.workspace, service.get_endpoint(session, name))
    return {"primaryKey": keys["primary"], "secondaryKey": keys["secondary"]}


@router.post("/{name}/regenerateKeys", openapi_extra=body_of(RegenerateKeysBody))
def regenerate_keys(context: Ctx, who: Admin, name: str, body: Json) -> Response:
    """Replace one key, or end all tokens of an endpoint that tokens open."""
    wanted = parse_body(RegenerateKeysBody, body)
    value = wanted.key_value.get_secret_value() if wanted.key_value else None
    with context.database.write() as session:
        operation = service.regenerate_keys(
            context.workspace, session, name, wanted.key_type, value
        )
    return operation_answer(context, settle(context, operation), {}, is_new=False)


@router.post("/{name}/token")
def get_token(context: Ctx, who: Caller, name: str) -> dict[str, Any]:
    """Return a token of an endpoint that tokens open; for whoever may invoke it."""
    who.check_scorer(name)
    with context.database.read() as session:
        return dict(issue_token(context.workspace, service.get_endpoint(session, name), utc()))


@router.get("/{name}/shadowReport")
def get_shadow_report(
    context: Ctx, who: Reader, name: str, live: str, shadow: str,
    absolute_tolerance: Annotated[
        float, Query(alias="absoluteTolerance", ge=0, allow_inf_nan=False)
    ] = 0.0,
    relative_tolerance: Annotated[
        float, Query(alias="relativeTolerance", ge=0, allow_inf_nan=False)
    ] = 0.0,
    worst: Annotated[int, Query(ge=0, le=WORST_MAX)] = WORST,
) -> dict[str, Any]:
    """Return what two deployments' answers to the same requests show."""
    tolerance = Tolerance(absolute_tolerance, relative_tolerance)
    report = shadow_report(context, name, live, shadow, tolerance=tolerance, worst=worst)
    return report.to_dict()


@router.get("/{endpoint}/deployments")
def list_deployments(context: Ctx, who: Reader, endpoint: str) -> dict[str, Any]:
    """Return an endpoint's deployments, by name."""
    with context.database.read() as session:
        service.get_endpoint(session, endpoint)
        query = select(Deployment).where(Deployment.endpoint == endpoint)
        rows = session.scalars(query.order_by(Deployment.name).limit(PAGE))
        return {"value": [online_deployment_view(row) for row in rows]}


@router.get("/{endpoint}/deployments/{name}")
def get_deployment(context: Ctx, who: Reader, endpoint: str, name: str) -> dict[str, Any]:
    """Return a deployment."""
    with context.database.read() as session:
        return online_deployment_view(service.get_deployment(session, endpoint, name))


@router.put("/{endpoint}/deployments/{name}", openapi_extra=body_of(OnlineDeploymentBody))
def put_deployment(context: Ctx, who: Admin, endpoint: str, name: str, body: Json) -> Response:
    """Create or replace a deployment; the one that serves goes on until the new one is up."""
    with context.database.write() as session:
        row, operation, is_new = service.put_deployment(context, session, endpoint, name, body)
    operation = settle(context, operation)
    with context.database.read() as session:
        view = online_deployment_view(session.get(Deployment, (endpoint, name)) or row)
    return operation_answer(context, operation, view, is_new=is_new)


@router.delete("/{endpoint}/deployments/{name}")
def delete_deployment(context: Ctx, who: Admin, endpoint: str, name: str) -> Response:
    """Delete a deployment that gets no requests."""
    with context.database.write() as session:
        operation = service.delete_deployment(session, endpoint, name)
    return operation_answer(context, settle(context, operation), None, is_new=False)


@router.post("/{endpoint}/deployments/{name}/getLogs", openapi_extra=body_of(
    GetLogsBody, is_required=False
))
def get_logs(
    context: Ctx, who: Reader, endpoint: str, name: str, body: OptionalJson
) -> dict[str, str]:
    """Return the last lines of what the deployment's replicas printed."""
    wanted = parse_body(GetLogsBody, body)
    with context.database.read() as session:
        content = read_logs(
            context, session, endpoint, name, container=wanted.container_type, tail=wanted.tail
        )
    return {"content": content}
