"""Routes of the content of data assets: what a datastore has of it, and its files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anyio import from_thread, to_thread
from fastapi import APIRouter, Request

from inferay.control.data import Place, check_digest
from inferay.control.routes.common import Admin, Ctx
from inferay.errors import InvalidInput

router = APIRouter(prefix="/v1/datastores/{name}/uploads")


@router.get("/{digest}")
def get_upload(context: Ctx, who: Admin, name: str, digest: str) -> dict[str, Any]:
    """Return how much of the content with this hash is there, and its address."""
    with context.database.read() as session:
        place = Place(context, session, name, digest)
    files, size_bytes = place.count()
    return {"uri": place.uri, "files": files, "sizeBytes": size_bytes}


@router.put("/{digest}/{path:path}", status_code=204)
async def put_file(
    context: Ctx, who: Admin, request: Request, name: str, digest: str, path: str, sha256: str
) -> None:
    """Store a file of the content; one that is there stays as it is."""
    check_digest(sha256)
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        raise InvalidInput("expected a Content-Length", target="Content-Length")
    body = aiter(request.stream())

    def chunks() -> Iterator[bytes]:
        while (chunk := from_thread.run(anext, body, None)) is not None:
            yield chunk

    def store() -> None:
        with context.database.read() as session:
            place = Place(context, session, name, digest)
        place.put(path, chunks(), sha256, int(length))

    await to_thread.run_sync(store)
    async for _ in body:   # of a file that was there: its sender is not cut off
        pass
