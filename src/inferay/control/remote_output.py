"""A job's output on S3 or Azure, as the API hands it out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inferay.control.context import Context
from inferay.control.storage import access_of
from inferay.control.tables import Job
from inferay.engine.batch.store import open_store
from inferay.engine.storage.remote import open_remote
from inferay.errors import NotFound

#: Bytes of one request to the store, and so of the memory that one download takes.
PIECE_BYTES = 8 << 20


def files_of(context: Context, job: Job, names: set[str]) -> list[dict[str, Any]]:
    """Return the sizes of those names that there are, in order; blocks."""
    found = open_remote(job.output, access_of(context, job)).list()
    return [{"name": one.path, "sizeBytes": one.size_bytes} for one in found if one.path in names]


def content_of(context: Context, job: Job, name: str) -> Iterator[bytes]:
    """Yield the file's bytes, in pieces.

    Raises:
        NotFound: There is none.
    """
    store = open_store(job.output, access_of(context, job))
    if not store.exists(name):
        raise NotFound(f"there is no file '{name}'", target=name)
    size_bytes = open_remote(job.output, access_of(context, job)).stat(name).size_bytes
    return (
        store.read(name, start, min(start + PIECE_BYTES, size_bytes))
        for start in range(0, size_bytes, PIECE_BYTES)
    )
