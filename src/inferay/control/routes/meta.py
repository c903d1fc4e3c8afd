"""Routes about the control plane itself: status, operations, tokens, OpenAPI."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import func, select

import inferay
from inferay.control.routes.common import Admin, Caller, Ctx, Json, Reader, hoist
from inferay.control.tables import Deployment, Endpoint, Job, Operation, Token
from inferay.control.tokens import create_token, delete_token
from inferay.control.views import operation_view, token_view
from inferay.errors import InvalidInput, NotFound, Unavailable

router = APIRouter()


@router.get("/v1/status")
def status(context: Ctx, who: Reader) -> dict[str, Any]:
    """Say what runs and how much there is of it."""
    try:
        drivers = context.ray().drivers()
        ray = {"state": "Running", "drivers": sum(state == "alive" for state in drivers.values())}
    except Unavailable as error:
        ray = {"state": "Unavailable", "message": error.message}
    with context.database.read() as session:
        counts = {
            "endpoints": session.scalar(select(func.count()).select_from(Endpoint)),
            "deployments": session.scalar(select(func.count()).select_from(Deployment)),
            "liveJobs": session.scalar(
                select(func.count()).select_from(Job).where(Job.ended_at.is_(None))
            ),
        }
    return {"version": inferay.__version__, "url": context.url, "ray": ray, "counts": counts}


@router.get("/openapi.json", include_in_schema=False)
def openapi(request: Request, who: Caller) -> dict[str, Any]:
    """Return the OpenAPI document."""
    return hoist(request.app.openapi())


@router.get("/v1/operations/{key}")
def get_operation(context: Ctx, who: Reader, key: str) -> dict[str, Any]:
    """Return how far a long operation is."""
    with context.database.read() as session:
        row = session.get(Operation, key)
    if row is None:
        raise NotFound(f"there is no operation '{key}'", target=key)
    return operation_view(row)


@router.get("/v1/tokens")
def list_tokens(context: Ctx, who: Admin) -> dict[str, Any]:
    """Return all tokens, without their secrets."""
    with context.database.read() as session:
        return {"value": [token_view(row) for row in session.scalars(select(Token))]}


@router.post("/v1/tokens", status_code=201)
def post_token(context: Ctx, who: Admin, body: Json) -> dict[str, Any]:
    """Make a token; its secret is in this answer and nowhere else."""
    unknown = set(body) - {"name", "role", "endpoint", "days"}
    name, role = body.get("name"), body.get("role")
    endpoint, days = body.get("endpoint"), body.get("days")
    if unknown or not isinstance(name, str) or not isinstance(role, str):
        raise InvalidInput("expected name, role, and perhaps endpoint and days")
    if not isinstance(endpoint, str | None) or not isinstance(days, int | float | None):
        raise InvalidInput("endpoint: expected a name; days: expected a number")
    with context.database.write() as session:
        secret = create_token(session, name, role, endpoint, days)
    with context.database.read() as session:
        row = session.scalars(select(Token).where(Token.name == name)).one()
    return token_view(row) | {"token": secret}


@router.delete("/v1/tokens/{name}", status_code=204)
def remove_token(context: Ctx, who: Admin, name: str) -> None:
    """Delete a token; it is refused from now on."""
    with context.database.write() as session:
        delete_token(session, name)
