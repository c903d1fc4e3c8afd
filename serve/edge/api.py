"""What the control plane and replicas ask of the edge, as HTTP with JSON on a port of its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inferay.errors import InferayError, InvalidInput, NotAuthorized, NotFound, Unavailable
from inferay.serve.edge.edge import Edge
from inferay.serve.edge.registry import Replica
from inferay.serve.edge.render import Revision
from inferay.serve.routing import RoutingTable

log = logging.getLogger(__name__)

#: A table of a thousand endpoints has about 1 MB.
BODY_BYTES_MAX = 16 << 20

_STATUS: tuple[tuple[type[InferayError], int], ...] = (
    (InvalidInput, 400), (NotAuthorized, 401), (NotFound, 404), (Unavailable, 503),
    (InferayError, 500),
)

Endpoint = Callable[[Request], Awaitable[Response]]


def create_api(edge: Edge) -> Starlette:
    """Return the application over an edge that is open."""

    async def put_table(request: Request) -> Response:
        edge.check_admin(_bearer(request))
        body = await _json(request)
        try:
            table = RoutingTable.from_dict(body)
        except (KeyError, TypeError) as error:
            raise InvalidInput(f"the body is no routing table: {error}") from None
        await run_in_threadpool(edge.publish, table)
        return JSONResponse({})

    async def get_state(request: Request) -> Response:
        edge.check_admin(_bearer(request))
        return JSONResponse(await run_in_threadpool(edge.state))

    async def reload(request: Request) -> Response:
        edge.check_admin(_bearer(request))
        await run_in_threadpool(edge.reload)
        return JSONResponse({})

    async def announce(request: Request) -> Response:
        replica = Replica.parse(await _json(request))
        edge.check_credential(replica.of, _bearer(request))
        return JSONResponse(await run_in_threadpool(edge.announce, replica))

    async def leave(request: Request) -> Response:
        id = request.path_params["id"]
        try:
            edge.check_credential(edge.replica_of(id), _bearer(request))
        except NotFound:   # it left already
            return JSONResponse({"is_gone": True})
        return JSONResponse({"is_gone": await run_in_threadpool(edge.leave, id)})

    async def fail(request: Request) -> Response:
        body = await _json(request)
        try:
            of: Revision = (body["endpoint"], body["deployment"], body["revision"])
            edge.check_credential(of, _bearer(request))
            edge.fail(of, str(body["replica"]), dict(body["error"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"the body is no failure: {error}") from None
        return Response(status_code=204)

    async def on_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, InferayError)
        status = next(status for cls, status in _STATUS if isinstance(error, cls))
        return JSONResponse({"error": error.as_dict()}, status_code=status)

    return Starlette(
        routes=[
            Route("/table", put_table, methods=["PUT"]),
            Route("/state", get_state, methods=["GET"]),
            Route("/reload", reload, methods=["POST"]),
            Route("/replicas", announce, methods=["POST"]),
            Route("/replicas/{id}/leave", leave, methods=["POST"]),
            Route("/failures", fail, methods=["POST"]),
        ],
        exception_handlers={InferayError: on_error},
    )


def _bearer(request: Request) -> str:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


async def _json(request: Request) -> dict[str, Any]:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_BYTES_MAX:
            raise InvalidInput(f"the body is larger than {BODY_BYTES_MAX} bytes")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInput("expected a JSON object in the body")
    return found
