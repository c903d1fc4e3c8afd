"""A store of Azure's block blobs: conditional puts, and blocks for what is large.

Blocks that were put and never listed are no blob; Azure drops them after a week, or when another
list of blocks is put under the name.
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from inferay.engine.batch.multipart import PARTS_IN_FLIGHT
from inferay.engine.batch.remote_store import REQUESTS_MAX, RemoteStore, new_mark
from inferay.engine.storage.retries import answer_of

T = TypeVar("T")


class BlobStore(RemoteStore):
    """A store of the blobs below a prefix of a container, on a file system of `storage.azure`."""

    mark_name = "inferay_put"   # names of metadata are identifiers there

    def replace(self, name: str, data: bytes) -> None:
        """See `Store.replace`."""
        blob = self.blob(name)
        self._wait(self.call("writing", name, lambda: blob.upload_blob(
            data, length=len(data), overwrite=True
        )))

    def remove(self, name: str) -> None:
        """See `Store.remove`."""
        self._wait(self._remove(name))

    def delete(self, prefix: str) -> None:
        """See `Store.delete`."""
        names = self.names(prefix.rstrip("/") + "/")
        for first in range(0, len(names), REQUESTS_MAX):
            self._wait(self._delete(names[first : first + REQUESTS_MAX]))

    # -- for `BlockUpload` too

    def uri(self, name: str) -> str:
        """See `RemoteStore.uri`; with the account's host, as a URL has it."""
        host = self._filesystem.service_client.primary_hostname
        return f"https://{host}/{self._bucket}/{self._prefix}{name}"

    def blob(self, name: str) -> Any:
        """Return the client of a name's blob."""
        return self._filesystem.service_client.get_blob_client(self._bucket, self.key(name))

    async def call(
        self, doing: str, name: str, attempt: Callable[[], Awaitable[T]]
    ) -> T:
        """Return the answer to a request about a name.

        Raises:
            FileNotFoundError: There is no such blob.
            FileExistsError: A condition of the request does not hold.
            InferayError: It failed for good; see `retries.named`.
        """
        return await self._retry(attempt, f"{doing} {self.uri(name)}")

    async def head(self, name: str) -> dict[str, str] | None:
        """See `RemoteStore.head`."""
        try:
            found = await self.call("looking for", name, self.blob(name).get_blob_properties)
        except FileNotFoundError:
            return None
        metadata: dict[str, str] = found.metadata or {}
        return metadata

    # -- inside

    def _upload(self, name: str) -> BlockUpload:
        return BlockUpload(self, name, new_mark())

    async def _create(self, name: str, data: bytes) -> None:
        mark, blob = new_mark(), self.blob(name)
        try:
            await self.call("writing", name, lambda: blob.upload_blob(
                data, length=len(data), overwrite=False, metadata={self.mark_name: mark}
            ))
        except FileExistsError:
            if not await self.is_marked(name, mark):
                raise FileExistsError(f"{self.uri(name)} exists already") from None

    async def _read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None and stop <= start:
            return b""
        blob = self.blob(name)
        length = None if stop is None else stop - start
        offset = None if (start, stop) == (0, None) else start

        async def attempt() -> bytes:
            try:
                found = await blob.download_blob(offset=offset, length=length, decompress=False)
            except Exception as error:
                answer = answer_of(error)
                if answer is not None and answer[0] == "InvalidRange":   # it ends before `start`
                    return b""
                raise
            data: bytes = await found.readall()
            return data

        return await self.call("reading", name, attempt)

    async def _names(self, prefix: str) -> list[str]:
        container = self._filesystem.service_client.get_container_client(self._bucket)
        listed = container.list_blob_names(name_starts_with=self.key(prefix) or None)
        found: list[str] = []
        token: str | None = None
        while True:
            page, token = await self.call(
                "listing", prefix, lambda token=token: _page(listed, token)   # type: ignore[misc]
            )
            found += [name.removeprefix(self._prefix) for name in page]
            if not token:
                return sorted(found, key=str.encode)

    async def _remove(self, name: str) -> None:
        try:
            await self.call("deleting", name, self.blob(name).delete_blob)
        except FileNotFoundError:
            return

    async def _delete(self, names: list[str]) -> None:
        await asyncio.gather(*(self._remove(name) for name in names))


class BlockUpload:
    """One blob that goes up in blocks; see `Upload`.

    Args:
        store: Where to.
        name: Of the blob.
        mark: Of this put; its blocks are named by it.
    """

    def __init__(self, store: BlobStore, name: str, mark: str) -> None:
        self._store = store
        self._name = name
        self._mark = mark
        self._blob = store.blob(name)
        self._sent: deque[Future[Any]] = deque()
        self._ids: list[str] = []

    def begin(self) -> None:
        """See `Upload.begin`."""
        self._store.start(self._store.check_free(self._name)).result()

    def add(self, part: bytes) -> None:
        """See `Upload.add`."""
        if len(self._sent) >= PARTS_IN_FLIGHT:
            self._sent.popleft().result()
        block = base64.b64encode(f"{self._mark}{len(self._ids):06d}".encode()).decode()
        self._ids.append(block)
        self._sent.append(self._store.start(self._store.call(
            "writing", self._name, lambda: self._blob.stage_block(block, part, len(part))
        )))

    def complete(self) -> None:
        """See `Upload.complete`."""
        while self._sent:
            self._sent.popleft().result()
        self._store.start(self._complete()).result()

    def abort(self) -> None:
        """See `Upload.abort`."""
        for request in self._sent:
            request.cancel()

    async def _complete(self) -> None:
        from azure.core import MatchConditions
        from azure.storage.blob import BlobBlock

        blocks = [BlobBlock(block_id=block) for block in self._ids]
        metadata = {self._store.mark_name: self._mark}
        try:
            await self._store.call("completing", self._name, lambda: self._blob.commit_block_list(
                blocks, metadata=metadata, match_condition=MatchConditions.IfMissing
            ))
        except FileExistsError:
            # It may be ours: the answer to an earlier attempt was lost.
            if not await self._store.is_marked(self._name, self._mark):
                raise FileExistsError(f"{self._store.uri(self._name)} exists already") from None


async def _page(listed: Any, token: str | None) -> tuple[list[str], str | None]:
    pages = listed.by_page(token)
    names = [name async for name in await anext(pages)]
    return names, pages.continuation_token
