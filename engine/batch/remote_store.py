"""What stores of objects have in common: requests on a loop, conditional puts, reading ahead.

An answer may be lost on its way, so a put that is refused may be one that was carried out before.
Each put therefore carries a mark of its own, and a refused one looks whose mark the object has.

Requests are tried again by `retries`; what is raised in the end says what was done to what.
"""

from __future__ import annotations

import abc
import asyncio
import itertools
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from inferay.engine.batch.multipart import parts_of
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


class Upload(Protocol):
    """One object that goes up in parts; `begin`, `add` for each, `complete`; else `abort`."""

    def begin(self) -> None:
        """Begin the upload.

        Raises:
            FileExistsError: The name is taken.
        """

    def add(self, part: bytes) -> None:
        """Send the next part; blocks while too many are under way."""

    def complete(self) -> None:
        """Make the parts one object; blocks until all are there.

        Raises:
            FileExistsError: The name was taken in the meantime.
        """

    def abort(self) -> None:
        """Leave no object behind but what the name had before."""


class RemoteStore(abc.ABC):
    """A store of the objects below a prefix of a bucket or container; safe for several threads.

    Args:
        filesystem: A file system that retries nothing itself.
        path: `bucket/prefix`.
        policy: How often and how long a request is tried.

    Attributes:
        mark_name: Name, among an object's metadata, of the mark of the put that made it.
    """

    can_append = False
    mark_name: str

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
        upload = self._upload(name)
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

    def names(self, prefix: str) -> list[str]:
        """See `Store.names`."""
        return self._wait(self._names(prefix))

    def sweep(self) -> None:  # noqa: B027 (there is nothing to do)
        """See `Store.sweep`: what of an upload nobody ended goes with the next one of its name."""

    # -- for uploads too

    @abc.abstractmethod
    def uri(self, name: str) -> str:
        """Return the name's address, for messages."""

    @abc.abstractmethod
    async def head(self, name: str) -> dict[str, str] | None:
        """Return the metadata of an object, or None if there is none."""

    async def is_marked(self, name: str, mark: str) -> bool:
        """Return whether it is the put with this mark that made the object."""
        metadata = await self.head(name)
        return metadata is not None and metadata.get(self.mark_name) == mark

    def start(self, request: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin a request on the file system's own loop."""
        return asyncio.run_coroutine_threadsafe(request, self._filesystem.loop)

    async def check_free(self, name: str) -> None:
        """Check that nothing has the name.

        Raises:
            FileExistsError: Something has.
        """
        if await self.head(name) is not None:
            raise FileExistsError(f"{self.uri(name)} exists already")

    def key(self, name: str) -> str:
        """Return a name's key.

        Raises:
            InvalidInput: It has bytes that are no UTF-8, which a key cannot have.
        """
        try:
            (self._prefix + name).encode()
        except UnicodeEncodeError:
            raise InvalidInput(
                f"{name!r} cannot be written to {self.uri('')}: names there are UTF-8; rename the "
                "file",
                code="NameNotAllowed", target=repr(name),
            ) from None
        return self._prefix + name

    # -- inside

    @abc.abstractmethod
    def _upload(self, name: str) -> Upload:
        """Return an upload in parts that has not begun."""

    @abc.abstractmethod
    async def _create(self, name: str, data: bytes) -> None:
        """Put an object in one request, if the name is free."""

    @abc.abstractmethod
    async def _read(self, name: str, start: int = 0, stop: int | None = None) -> bytes: ...

    @abc.abstractmethod
    async def _names(self, prefix: str) -> list[str]: ...

    async def _refresh(self) -> None:  # noqa: B027 (a client may do it by itself)
        """Read credentials that expired anew."""

    def _wait(self, request: Coroutine[Any, Any, T]) -> T:
        return self.start(request).result()

    async def _retry(self, attempt: Callable[[], Awaitable[T]], what: str) -> T:
        return await retry_async(attempt, what, policy=self._policy, refresh=self._refresh)


def new_mark() -> str:
    """Return a mark that no other put has."""
    return uuid.uuid4().hex
