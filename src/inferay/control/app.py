"""The control plane's REST application: routes, who may call them, errors with Azure's body."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import inferay
from inferay.control.context import Context
from inferay.control.routes import archive, assets, data, endpoints, jobs, meta, models, online
from inferay.errors import (
    Conflict,
    InferayError,
    InvalidInput,
    NotAuthorized,
    NotFound,
    Unavailable,
)

log = logging.getLogger(__name__)

#: What a client is answered for each class of error; the most specific class wins.
STATUS: dict[type[InferayError], int] = {
    InferayError: 500,
    InvalidInput: 400,
    NotFound: 404,
    Conflict: 409,
    NotAuthorized: 403,
    Unavailable: 503,
}

#: Azure's code for statuses that the framework itself answers with.
CODES = {404: "NotFound", 405: "MethodNotAllowed"}


def create_app(context: Context) -> FastAPI:
    """Return the application; it starts and stops nothing by itself."""
    app = FastAPI(
        title="inferay", version=inferay.__version__, openapi_url=None, docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    # The routes of assets take any word, so they are last.
    for module in (meta, endpoints, data, online, jobs, archive, models, assets):
        app.include_router(module.router)
    app.add_exception_handler(InferayError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_request_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.middleware("http")(_guard)
    return app


async def _guard(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Give every answer a request id, and an error of ours Azure's body without a stack."""
    request_id = str(uuid.uuid4())
    try:
        response = await call_next(request)
    except Exception:
        log.exception("%s %s failed (request %s)", request.method, request.url.path, request_id)
        error = InferayError(
            f"an internal error; the control log has it under request {request_id}",
            code="InternalError",
        )
        response = _answer(500, error.as_dict())
    response.headers["x-ms-request-id"] = request_id
    response.headers["x-content-type-options"] = "nosniff"
    return response


async def _on_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, InferayError):
        raise error
    status = next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)
    response = _answer(status, error.as_dict())
    if error.code == "Unauthenticated":
        response = _answer(401, error.as_dict())
        response.headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response


async def _on_request_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    if first["loc"][0] == "path":   # `/v1/{kind}` with a kind that does not exist
        return await _on_http_error(request, HTTPException(404, "there is no such route"))
    where = ".".join(str(step) for step in first["loc"])
    message = f"{where}: {first['msg']}"
    return _answer(400, {"code": "InvalidInput", "message": message, "target": where,
                         "details": []})


async def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = CODES.get(error.status_code, "Error")
    message = f"{request.method} {request.url.path}: {error.detail}"
    answer = _answer(
        error.status_code,
        {"code": code, "message": message, "target": request.url.path, "details": []},
    )
    answer.headers.update(error.headers or {})
    return answer


def _answer(status: int, error: dict[str, Any]) -> Response:
    # What is wrong with text may be that it does not encode: then its escape is JSON as well.
    content = json.dumps({"error": error}, ensure_ascii=False).encode(errors="backslashreplace")
    return Response(content, status_code=status, media_type="application/json")
