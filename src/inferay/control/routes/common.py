"""What routes share: the context, who calls, JSON bodies with a limit, long operations' answers."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from inferay.control.context import Context
from inferay.control.tables import Operation
from inferay.control.tokens import Principal, authenticate
from inferay.control.views import operation_view
from inferay.errors import InvalidInput, NotFound

#: A body is a declaration, never data: files go through uploads.
BODY_BYTES_MAX = 4 << 20

#: Names of one page of a list.
PAGE = 1000

#: How long an answer may wait for its operation: most are done at once, which saves a poll.
SETTLE_S = 1.5


def get_context(request: Request) -> Context:
    """Return the control plane's context."""
    context: Context = request.app.state.context
    return context


def get_principal(request: Request) -> Principal:
    """Return who calls.

    Raises:
        NotAuthorized: Nobody that is known.
    """
    context = get_context(request)
    with context.database.read() as session:
        return authenticate(session, request.headers.get("authorization"))


Ctx = Annotated[Context, Depends(get_context)]
Caller = Annotated[Principal, Depends(get_principal)]


def get_reader(who: Caller) -> Principal:
    """Return who calls, if that one may look at everything."""
    who.check_reader()
    return who


def get_admin(who: Caller) -> Principal:
    """Return who calls, if that one may change things."""
    who.check_admin()
    return who


Reader = Annotated[Principal, Depends(get_reader)]
Admin = Annotated[Principal, Depends(get_admin)]


async def get_json(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body.

    Raises:
        InvalidInput: It is none, or too large.
    """
    return _object_in(await _read(request))


async def get_optional_json(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body; an empty one where there is no body.

    Raises:
        InvalidInput: It is none, or too large.
    """
    return _object_in(await _read(request) or b"{}")


async def _read(request: Request) -> bytes:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_BYTES_MAX:
            raise InvalidInput(f"the body is larger than {BODY_BYTES_MAX} bytes")
    return data


def _object_in(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"expected a JSON object in the body, got {type(found).__name__}")
    return found


Json = Annotated[dict[str, Any], Depends(get_json)]
OptionalJson = Annotated[dict[str, Any], Depends(get_optional_json)]


def body_of(cls: type[BaseModel], *, is_required: bool = True) -> dict[str, Any]:
    """Return the part of the OpenAPI document that describes a JSON body.

    What it refers to stands in its `$defs` until `hoist` moves it.
    """
    schema = cls.model_json_schema(by_alias=True, ref_template="#/components/schemas/{model}")
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": is_required, "content": content}}


def hoist(document: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI document with the bodies' definitions where they are referred to."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for item in document["paths"].values():
        for operation in item.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                schemas.update(content["schema"].pop("$defs", {}))
    return document


def settle(context: Context, operation: Operation) -> Operation:
    """Wait a moment for an operation; return it as it is then."""
    context.wake.set()
    until_s = time.monotonic() + SETTLE_S
    while True:
        with context.database.read() as session:
            row = session.get_one(Operation, operation.id)
        if row.status != "Running" or time.monotonic() > until_s:
            return row
        time.sleep(0.01)


def operation_answer(
    context: Context, operation: Operation, view: dict[str, Any] | None, *, is_new: bool
) -> Response:
    """Return the answer to a PUT or DELETE: the resource, and where to ask how far it is.

    Also where it has failed at once: the operation is where the reason stands.
    """
    status = 201 if is_new else 200
    if view is None and operation.status == "Succeeded":
        return Response(status_code=204)
    if view is None:
        status, view = 202, operation_view(operation)
    headers = {}
    if operation.status != "Succeeded":
        address = f"{context.url}/v1/operations/{operation.id}"
        headers = {"Azure-AsyncOperation": address, "Location": address, "Retry-After": "1"}
    return JSONResponse(view, status_code=status, headers=headers)


def inside(folder: Path, path: str) -> Path:
    """Return the file below the folder, links resolved.

    Raises:
        NotFound: There is none, or it lies elsewhere.
    """
    file = Path(os.path.realpath(folder / path)) if "\0" not in path else folder
    if not file.is_relative_to(os.path.realpath(folder)) or not os.path.isfile(file):
        raise NotFound(f"there is no file '{path}'", target=path)
    return file
