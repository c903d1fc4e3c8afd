"""An upload in parts: how large each is, and the requests that make them one object.

What dies in the middle leaves an upload, which costs space and is no object. The next upload of the
same name aborts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferay.engine.batch.object_store import ObjectStore

#: S3's limit; also, a part but the last has at least 5 MiB.
PARTS_MAX = 10_000

#: Name, among an object's metadata, of the mark of the put that made it.
MARK = "inferay-put"

#: Of a part, unless the object is so large that it would have too many.
PART_BYTES = 8 << 20

#: Where the whole size is unknown, parts double after each so many of them.
PARTS_OF_A_SIZE = 1_000

#: Parts under way at once; they, and the one being filled, are what is in memory.
PARTS_IN_FLIGHT = 4


def part_sizes(size_bytes: int | None = None) -> Iterator[int]:
    """Yield the sizes of an upload's parts, without end: 10,000 of them hold any object.

    Args:
        size_bytes: Of the whole, if it is known: then all parts but the last are of one size.
    """
    if size_bytes is None:
        size = PART_BYTES
        while True:
            for _ in range(PARTS_OF_A_SIZE):
                yield size
            size *= 2
    size = max(PART_BYTES, math.ceil(size_bytes / PARTS_MAX))
    while True:
        yield size


def parts_of(chunks: Iterable[bytes], size_bytes: int | None = None) -> Iterator[bytes]:
    """Yield the joined chunks in parts of the sizes that an upload has."""
    sizes = part_sizes(size_bytes)
    size, held = next(sizes), bytearray()
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            taken = min(len(view), size - len(held))
            held += view[:taken]
            view = view[taken:]
            if len(held) == size:
                yield bytes(held)
                size, held = next(sizes), bytearray()
    if held:
        yield bytes(held)


class Multipart:
    """One upload; `begin`, `add` for each part, `complete`; or `abort`, whatever was before.

    Args:
        store: Where to.
        name: Of the object.
        mark: Of this put.
    """

    def __init__(self, store: ObjectStore, name: str, mark: str) -> None:
        self._store = store
        self._name = name
        self._mark = mark
        self._id: str | None = None
        self._sent: deque[Future[dict[str, Any]]] = deque()
        self._tags: list[str] = []
        self._count = 0

    def begin(self) -> None:
        """Begin the upload; what others left of this name is aborted.

        Raises:
            FileExistsError: The name is taken.
        """
        self._wait(self._begin())

    def add(self, part: bytes) -> None:
        """Send the next part; blocks while too many are under way."""
        if len(self._sent) >= PARTS_IN_FLIGHT:
            self._tags.append(self._sent.popleft().result()["ETag"])
        self._count += 1
        self._sent.append(self._store.start(self._store.call(
            "upload_part", "writing", self._name, UploadId=self._id, PartNumber=self._count,
            Body=part,
        )))

    def complete(self) -> None:
        """Make the parts one object; blocks until all are there.

        Raises:
            FileExistsError: The name was taken in the meantime.
        """
        while self._sent:
            self._tags.append(self._sent.popleft().result()["ETag"])
        self._wait(self._complete())

    def abort(self) -> None:
        """Leave nothing behind but what the name had before."""
        for request in self._sent:
            request.cancel()
        self._wait(self._abort_all())

    def _wait(self, request: Any) -> None:
        self._store.start(request).result()

    async def _begin(self) -> None:
        await self._store.check_free(self._name)
        await self._abort_all()
        answer = await self._store.call(
            "create_multipart_upload", "beginning to write", self._name,
            Metadata={MARK: self._mark},
        )
        self._id = answer["UploadId"]

    async def _complete(self) -> None:
        await self._store.check_free(self._name)
        parts = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(self._tags, 1)]
        try:
            await self._store.call(
                "complete_multipart_upload", "completing", self._name, UploadId=self._id,
                MultipartUpload={"Parts": parts}, IfNoneMatch="*",
            )
        except (FileNotFoundError, FileExistsError):
            # It may be done: the answer to an earlier attempt was lost.
            if not await self._store.is_marked(self._name, self._mark):
                raise
        # The answer to the beginning may have been lost too, and another upload begun.
        await self._abort_all()

    async def _abort_all(self) -> None:
        await asyncio.gather(*(
            self._abort(upload) for upload in await self._store.uploads(self._name)
        ))

    async def _abort(self, upload: str) -> None:
        with contextlib.suppress(FileNotFoundError):   # it ended by itself
            await self._store.call(
                "abort_multipart_upload", "aborting", self._name, UploadId=upload
            )
