"""Routes of models, data, environments, code, and of uploads from clients on other machines."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import func, select

from inferay.config import BLOB_DATASTORE
from inferay.control import assets as service
from inferay.control.context import Context
from inferay.control.environments import begin_build
from inferay.control.routes.common import (
    PAGE,
    Admin,
    Caller,
    Ctx,
    Json,
    Reader,
    operation_answer,
    settle,
)
from inferay.control.tables import Asset, Operation
from inferay.control.views import asset_view
from inferay.engine.storage import datastore_uri
from inferay.errors import InvalidInput, NotAuthorized, NotFound, nearest

router = APIRouter(prefix="/v1")

#: What a file system says of a name that is too long, or a file here and a folder there.
_WRONG_NAME = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY)


class Kind(StrEnum):
    """The kinds of asset, as they stand in a URL."""

    MODELS = "models"
    DATA = "data"
    ENVIRONMENTS = "environments"
    CODES = "codes"


class ListView(StrEnum):
    """Azure's words for what a list shows."""

    ACTIVE = "ActiveOnly"
    ARCHIVED = "ArchivedOnly"
    ALL = "All"


_ARCHIVED = {ListView.ACTIVE: (False,), ListView.ARCHIVED: (True,), ListView.ALL: (False, True)}


@router.post("/uploads", status_code=201)
def begin_upload(context: Ctx, who: Caller) -> dict[str, Any]:
    """Begin an upload; files are put below its address, then named by its `uri`."""
    _check_may_upload(who.role)
    key = str(uuid.uuid4())
    _upload_folder(context, key).mkdir(parents=True)
    uri = datastore_uri(BLOB_DATASTORE, f"LocalUpload/{key}")
    return {"name": key, "uri": uri, "address": f"{context.url}/v1/uploads/{key}"}


@router.put("/uploads/{key}/{path:path}", status_code=204)
async def put_upload(context: Ctx, who: Caller, request: Request, key: str, path: str) -> None:
    """Store one file of an upload; a repeat replaces it."""
    _check_may_upload(who.role)
    folder = _upload_folder(context, key)
    parts = PurePosixPath(path).parts
    if not folder.is_dir():
        raise NotFound(f"there is no upload '{key}'", target=key)
    if not parts or ".." in parts or path.startswith("/") or "\0" in path:
        raise InvalidInput(f"'{path}' is no relative path without '..'", target=path)
    target = folder.joinpath(*parts)
    aside = target.with_name(f".{uuid.uuid4().hex}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "xb") as file:
            async for chunk in request.stream():
                file.write(chunk)
        os.replace(aside, target)
    except OSError as error:
        if error.errno not in _WRONG_NAME:
            raise
        raise InvalidInput(
            f"'{path}' cannot be a file of this upload: {error.strerror}", target=path
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


@router.delete("/uploads/{key}", status_code=204)
def delete_upload(context: Ctx, who: Admin, key: str) -> None:
    """Delete an upload; idempotent."""
    shutil.rmtree(_upload_folder(context, key), ignore_errors=True)


@router.get("/{kind}")
def list_assets(
    context: Ctx, who: Reader, kind: Kind, listViewType: ListView = ListView.ACTIVE  # noqa: N803
) -> dict[str, Any]:
    """Return the latest version of each name that is listed."""
    with context.database.read() as session:
        newest = select(func.max(Asset.id)).where(
            Asset.kind == kind, Asset.is_archived.in_(_ARCHIVED[listViewType])
        ).group_by(Asset.name)
        rows = session.scalars(
            select(Asset).where(Asset.id.in_(newest)).order_by(Asset.name).limit(PAGE)
        )
        return {"value": [asset_view(row) for row in rows]}


@router.get("/{kind}/{name}")
def get_asset(context: Ctx, who: Reader, kind: Kind, name: str) -> dict[str, Any]:
    """Return a name's container: its latest and its next version."""
    with context.database.read() as session:
        row = service.latest(session, kind, name)
        if row is None:
            raise missing(context, kind, name)
        properties = {
            "latestVersion": row.version, "nextVersion": service.next_version(session, kind, name),
            "isArchived": False,
        }
    container = asset_view(row)
    container_id = container["id"].rpartition("/versions/")[0]
    return container | {"id": container_id, "name": name, "properties": properties}


@router.get("/{kind}/{name}/versions")
def list_versions(
    context: Ctx, who: Reader, kind: Kind, name: str,
    listViewType: ListView = ListView.ACTIVE,  # noqa: N803
) -> dict[str, Any]:
    """Return the versions of a name that are listed, newest first."""
    with context.database.read() as session:
        query = select(Asset).where(Asset.kind == kind, Asset.name == name)
        is_known = session.scalar(query.limit(1)) is not None
        query = query.where(Asset.is_archived.in_(_ARCHIVED[listViewType]))
        rows = list(session.scalars(query.order_by(Asset.id.desc()).limit(PAGE)))
    if not is_known:
        raise missing(context, kind, name)
    return {"value": [asset_view(row) for row in rows]}


@router.get("/{kind}/{name}/versions/{version}")
def get_version(context: Ctx, who: Reader, kind: Kind, name: str, version: str) -> dict[str, Any]:
    """Return a version; `latest` is the one registered last."""
    with context.database.read() as session:
        if version == "latest":
            row = service.latest(session, kind, name)
        else:
            row = service.find_version(session, kind, name, version)
    if row is None:
        raise missing(context, kind, name, version)
    return asset_view(row)


@router.get("/{kind}/{name}/labels/{label}")
def get_labelled(context: Ctx, who: Reader, kind: Kind, name: str, label: str) -> dict[str, Any]:
    """Return the version with a label: `latest`, or an alias of MLflow's registry."""
    with context.database.read() as session:
        return asset_view(service.labelled(session, kind, name, label))


@router.put("/{kind}/{name}/versions/{version}")
def put_version(
    context: Ctx, who: Admin, kind: Kind, name: str, version: str, body: Json
) -> Response:
    """Register a version; a repeat with the same content changes nothing."""
    return _put(context, who, kind, name, version, body)


@router.post("/{kind}/{name}/versions")
def post_version(context: Ctx, who: Admin, kind: Kind, name: str, body: Json) -> Response:
    """Register the next version of a name."""
    return _put(context, who, kind, name, None, body)


@router.post("/environments/{name}/versions/{version}/build")
def build_environment(context: Ctx, who: Admin, name: str, version: str) -> Response:
    """Build an environment ahead of its use, on this machine; `latest` is the newest one."""
    with context.database.write() as session:
        operation = begin_build(session, name, None if version == "latest" else version)
    return operation_answer(context, settle(context, operation), {}, is_new=False)


@router.delete("/{kind}/{name}/versions/{version}", status_code=204)
def delete_version(context: Ctx, who: Admin, kind: Kind, name: str, version: str) -> None:
    """Delete a version's entry; jobs that run with it go on, for its snapshot stays."""
    with context.database.write() as session:
        row = service.find_version(session, kind, name, version)
        if row is None:
            raise missing(context, kind, name, version)
        session.delete(row)


def _put(
    context: Context, who: Admin, kind: Kind, name: str, version: str | None, body: dict[str, Any]
) -> Response:
    with context.database.write() as session:
        row, is_new = service.put_asset(context, session, who, kind, name, version, body)
        key = row.id
        operation = session.scalar(
            select(Operation).where(
                Operation.target == f"{kind}/{name}/versions/{row.version}",
                Operation.status == "Running",
            )
        )
    if operation is not None:
        operation = settle(context, operation)
    with context.database.read() as session:
        view = asset_view(session.get_one(Asset, key))
    headers = {}
    if operation is not None and operation.status == "Running":
        address = f"{context.url}/v1/operations/{operation.id}"
        headers = {"Azure-AsyncOperation": address, "Retry-After": "1"}
    return JSONResponse(view, status_code=201 if is_new else 200, headers=headers)


def missing(context: Context, kind: str, name: str, version: str | None = None) -> NotFound:
    """Return the error of an asset that there is not, with the nearest name."""
    with context.database.read() as session:
        names = list(session.scalars(select(Asset.name).where(Asset.kind == kind).distinct()))
    what = f"{name} version {version}" if version else name
    hint = "" if name in names else nearest(name, names)
    return NotFound(f"there is no {kind.removesuffix('s')} {what}{hint}", target=name)


def _upload_folder(context: Context, key: str) -> Path:
    try:
        key = str(uuid.UUID(key))
    except ValueError:
        raise NotFound(f"there is no upload '{key[:100]}'") from None
    return context.workspace.datastores / BLOB_DATASTORE / "LocalUpload" / key


def _check_may_upload(role: str) -> None:
    if role == "reader":
        raise NotAuthorized("a token of role reader may not upload", code="Forbidden")
