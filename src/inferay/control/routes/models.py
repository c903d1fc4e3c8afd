"""Routes of what models alone have: their content, file by file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from inferay.control import assets as service
from inferay.control.context import Context
from inferay.control.routes.common import Ctx, Reader, inside
from inferay.control.scored import path_of
from inferay.engine.batch.spec import file_names
from inferay.errors import Conflict, NotFound

router = APIRouter(prefix="/v1/models/{name}/versions/{version}/files")


@router.get("")
def list_files(context: Ctx, who: Reader, name: str, version: str) -> dict[str, Any]:
    """Return the names and sizes of a model's files, below the name of its file or folder."""
    content = _content(context, name, version)
    names = [""] if content.is_file() else file_names(content)
    return {"value": [
        {"name": str(Path(content.name, one)), "sizeBytes": (content / one).stat().st_size}
        for one in names
    ]}


@router.get("/{path:path}")
def get_file(context: Ctx, who: Reader, name: str, version: str, path: str) -> Response:
    """Return a file of a model."""
    content = _content(context, name, version)
    file = inside(content.parent, path)
    return FileResponse(file, media_type="application/octet-stream")


def _content(context: Context, name: str, version: str) -> Path:
    with context.database.read() as session:
        row = service.find_version(session, "models", name, version)
        if row is None:
            raise NotFound(f"there is no model {name} version {version}", target=name)
        if row.state != "Succeeded":
            raise Conflict(f"the model {name} version {version} is {row.state}")
        return Path(path_of(row))
