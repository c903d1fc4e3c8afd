"""A store on S3: conditional puts instead of links, objects instead of logs.

An answer may be lost on its way, so a put that is refused may be one that was carried out before.
Each put therefore carries a mark of its own, and a refused one looks whose mark the object has.

Requests are tried again by `retries`; what is raised in the end says what was done to what.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from inferay.engine.batch.multipart import MARK, Multipart, parts_of
from inferay.engine.storage.retries import RetryPolicy, retry_async
from inferay.errors import InvalidInput

if TYPE_CHECKING:
    from fsspec.asyn import AsyncFileSystem

    from inferay.engine.batch.store import ByteRange

T = TypeVar("T")

#: Requests in flight for one reader or writer: hides 20 ms of latency, and bounds what is in
#: memory to as many ranges.
REQUESTS_MAX = 16

#: What one request may put; more goes up in parts.
PUT_BYTES_MAX = 32 << 20

#: Names that one request deletes (S3's limit).
DELETED_MAX = 1_000


class ObjectStore:
    """A store of the objects below a prefix of a bucket; safe for several threads.

    Args:
        filesystem: An s3fs file system that retries nothing itself.
        path: `bucket/prefix`.
        policy: How often and how long a request is tried.
    """

    can_append = False

    def __init__(
        self, filesystem: AsyncFileSystem, path: str,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008
    ) -> None:
        self._filesystem = filesystem
        self._bucket, _, prefix = path.strip("/").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._policy = policy

    def create(self, name: str, data: bytes) -> None:
        """See `Store.create`: one conditional put, or parts for what is large."""
        if len(data) > PUT_BYTES_MAX:
            self.create_stream(name, (data,), len(data))
        else:
            self._wait(self._create(name, data))

    def replace(self, name: str, data: bytes) -> None:
        """See `Store.replace`."""
        self._wait(self.call("put_object", "writing", name, Body=data))

    def create_stream(
        self, name: str, chunks: Iterable[bytes], size_bytes: int | None = None
    ) -> None:
        """See `Store.create_stream`: in parts, a few of them at a time, unless it is short.

        That the name is free is checked again right before the parts become an object, and asked
        of the service for that moment; a service that ignores the condition there (radosgw) leaves
        a gap of one request.
        """
        parts = parts_of(chunks, size_bytes)
        first = next(parts, b"")
        second = next(parts, None)
        if second is None:
            return self._wait(self._create(name, first))
        upload = Multipart(self, name, new_mark())
        try:
            upload.begin()
            for part in itertools.chain((first, second), parts):
                upload.add(part)
            upload.complete()
        except BaseException:
            upload.abort()
            raise

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """See `Store.read`."""
        return self._wait(self._read(name, start, stop))

    def read_each(self, ranges: Iterable[ByteRange]) -> Iterator[bytes]:
        """See `Store.read_each`."""
        ahead: deque[Future[bytes]] = deque()
        try:
            for wanted in ranges:
                ahead.append(self.start(self._read(*wanted)))
                if len(ahead) >= REQUESTS_MAX:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for request in ahead:
                request.cancel()

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""
        return self._wait(self.head(name)) is not None

    def remove(self, name: str) -> None:
        """See `Store.remove`."""
        self._wait(self.call("delete_object", "deleting", name))

    def names(self, prefix: str) -> list[str]:
        """See `Store.names`."""
        return self._wait(self._names(prefix))

    def delete(self, prefix: str) -> None:
        """See `Store.delete`."""
        names = self.names(prefix.rstrip("/") + "/")
        for first in range(0, len(names), DELETED_MAX):
            self._wait(self._delete(names[first : first + DELETED_MAX]))

    # -- for `Multipart` too

    def sweep(self) -> None:
        """See `Store.sweep`: an upload that nobody ended is aborted by the next one of its name."""

    def uri(self, name: str) -> str:
        """Return the name's address, for messages."""
        return f"s3://{self._bucket}/{self._prefix}{name}"

    def start(self, request: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin a request on the file system's own loop."""
        return asyncio.run_coroutine_threadsafe(request, self._filesystem.loop)

    async def call(self, method: str, doing: str, name: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to a request about a name.

        Raises:
            FileNotFoundError: There is no such object, or upload.
            FileExistsError: A condition of the request does not hold.
            InferayError: It failed for good; see `retries.named`.
        """
        key = self.key(name)

        async def attempt() -> dict[str, Any]:
            found: dict[str, Any] = await self._filesystem._call_s3(
                method, Bucket=self._bucket, Key=key, **arguments
            )
            return found

        return await self._retry(attempt, f"{doing} {self.uri(name)}")

    async def uploads(self, name: str) -> list[str]:
        """Return the ids of the uploads for a name that are under way."""
        key = self.key(name)

        async def attempt() -> list[str]:
            found = await self._filesystem._call_s3(
                "list_multipart_uploads", Bucket=self._bucket, Prefix=key
            )
            return [one["UploadId"] for one in found.get("Uploads", ()) if one["Key"] == key]

        return await self._retry(attempt, f"listing uploads of {self.uri(name)}")

    async def head(self, name: str) -> dict[str, str] | None:
        """Return the metadata of an object, or None if there is none."""
        try:
            found = await self.call("head_object", "looking for", name)
        except FileNotFoundError:
            return None
        metadata: dict[str, str] = found.get("Metadata", {})
        return metadata

    async def is_marked(self, name: str, mark: str) -> bool:
        """Return whether it is the put with this mark that made the object."""
        metadata = await self.head(name)
        return metadata is not None and metadata.get(MARK) == mark

    def key(self, name: str) -> str:
        """Return a name's key.

        Raises:
            InvalidInput: It has bytes that are no UTF-8, which a key cannot have.
        """
        try:
            (self._prefix + name).encode()
        except UnicodeEncodeError:
            raise InvalidInput(
                f"{name!r} cannot be written to s3://{self._bucket}: names there are UTF-8; rename "
                "the file",
                code="NameNotAllowed", target=repr(name),
            ) from None
        return self._prefix + name

    # -- inside

    def _wait(self, request: Coroutine[Any, Any, T]) -> T:
        return self.start(request).result()

    async def _retry(self, attempt: Callable[[], Awaitable[T]], what: str) -> T:
        async def refresh() -> None:
            await self._filesystem.set_session(refresh=True)

        return await retry_async(attempt, what, policy=self._policy, refresh=refresh)

    async def _create(self, name: str, data: bytes) -> None:
        mark = new_mark()
        try:
            await self.call(
                "put_object", "writing", name, Body=data, IfNoneMatch="*", Metadata={MARK: mark}
            )
        except FileExistsError:
            if not await self.is_marked(name, mark):
                raise FileExistsError(f"{self.uri(name)} exists already") from None

    async def _read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None and stop <= start:
            return b""
        last = "" if stop is None else stop - 1
        span = {} if (start, stop) == (0, None) else {"Range": f"bytes={start}-{last}"}
        key = self.key(name)

        async def attempt() -> bytes:
            try:
                answer = await self._filesystem._call_s3(
                    "get_object", Bucket=self._bucket, Key=key, **span
                )
            except OSError as error:
                if _code(error) == "InvalidRange":   # it ends before `start`
                    return b""
                raise
            async with answer["Body"] as body:
                data: bytes = await body.read()
                return data

        return await self._retry(attempt, f"reading {self.uri(name)}")

    async def _names(self, prefix: str) -> list[str]:
        found: list[str] = []
        arguments: dict[str, str] = {}
        while True:
            page = await self._page(prefix, arguments)
            found += [one["Key"].removeprefix(self._prefix) for one in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return found
            arguments = {"ContinuationToken": page["NextContinuationToken"]}

    async def _page(self, prefix: str, arguments: dict[str, str]) -> dict[str, Any]:
        key = self.key(prefix)

        async def attempt() -> dict[str, Any]:
            page: dict[str, Any] = await self._filesystem._call_s3(
                "list_objects_v2", Bucket=self._bucket, Prefix=key, **arguments
            )
            return page

        return await self._retry(attempt, f"listing {self.uri(prefix)}")

    async def _delete(self, names: list[str]) -> None:
        listed = {"Objects": [{"Key": self.key(name)} for name in names], "Quiet": True}

        async def attempt() -> None:
            answer = await self._filesystem._call_s3(
                "delete_objects", Bucket=self._bucket, Delete=listed
            )
            for error in answer.get("Errors", ()):
                raise ConnectionError(f"{error['Key']}: {error.get('Code')}")

        await self._retry(attempt, f"deleting {len(names)} objects of s3://{self._bucket}")


def new_mark() -> str:
    """Return a mark that no other put has."""
    return uuid.uuid4().hex


def _code(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
