"""Routes that archive assets and restore them: what is archived is in no list, and never latest."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from sqlalchemy import select

from inferay.control.routes.assets import Kind, missing
from inferay.control.routes.common import Admin, Ctx
from inferay.control.tables import Asset

router = APIRouter(prefix="/v1")


@router.post("/{kind}/{name}/archive")
def archive_all(context: Ctx, who: Admin, kind: Kind, name: str) -> dict[str, Any]:
    """Archive all versions of a name; by version they are found as before."""
    return _mark(context, kind, name, None, is_archived=True)


@router.post("/{kind}/{name}/restore")
def restore_all(context: Ctx, who: Admin, kind: Kind, name: str) -> dict[str, Any]:
    """Restore all versions of a name."""
    return _mark(context, kind, name, None, is_archived=False)


@router.post("/{kind}/{name}/versions/{version}/archive")
def archive(context: Ctx, who: Admin, kind: Kind, name: str, version: str) -> dict[str, Any]:
    """Archive a version."""
    return _mark(context, kind, name, version, is_archived=True)


@router.post("/{kind}/{name}/versions/{version}/restore")
def restore(context: Ctx, who: Admin, kind: Kind, name: str, version: str) -> dict[str, Any]:
    """Restore a version."""
    return _mark(context, kind, name, version, is_archived=False)


def _mark(
    context: Ctx, kind: Kind, name: str, version: str | None, *, is_archived: bool
) -> dict[str, Any]:
    with context.database.write() as session:
        query = select(Asset).where(Asset.kind == kind, Asset.name == name)
        rows = list(session.scalars(
            query if version is None else query.where(Asset.version == version)
        ))
        for row in rows:
            row.is_archived = is_archived
    if not rows:
        raise missing(context, kind, name, version)
    return {"isArchived": is_archived}
