"""Reading remote inputs: listed in key order, looked at, and fetched into files.

Every call blocks and may be made from any thread. Fetching goes on after a broken connection where
it stopped, where the server knows ranges, and begins again where not.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from inferay.engine.storage.access import Access
from inferay.engine.storage.filesystems import REDIRECTS_MAX, open_filesystem
from inferay.engine.storage.read_errors import (
    HttpStatusError,
    changed,
    lasting,
    of_file,
)
from inferay.engine.storage.retries import RetryPolicy, StorageUnavailable, retry
from inferay.engine.storage.uris import redacted
from inferay.errors import InvalidInput

#: Bytes that are read from a connection at once.
CHUNK_BYTES = 1 << 20

T = TypeVar("T")

_POLICY = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Found:
    """A remote file.

    Attributes:
        path: Relative to the root, with `/`.
        size_bytes: Its size.
        version: Its ETag, or where there is none when it was last modified, or "".
    """

    path: str
    size_bytes: int
    version: str


class Remote(Protocol):
    """Remote files below a root."""

    def list(self) -> Iterator[Found]:
        """Yield every file below the root, in bytewise order of the path.

        Raises:
            InferayError: It cannot be listed.
        """

    def is_empty(self) -> bool:
        """Return whether there is no file below the root.

        Raises:
            InferayError: It cannot be listed.
        """

    def stat(self, path: str) -> Found:
        """Return a file as it is now.

        Raises:
            ReadError: It does not exist, or cannot be read.
            InferayError: Nothing there can be read.
        """

    def fetch(self, expected: Found, file: IO[bytes]) -> None:
        """Write the whole file; the first bytes that it already holds count as fetched.

        Raises:
            OSError: The disk is full.
            ReadError: The file is not the one expected, or cannot be read.
            InferayError: Nothing there can be read.
        """


def open_remote(root: str, access: Access, policy: RetryPolicy = _POLICY) -> Remote:
    """Return what reads below the root: a bucket's prefix, or the one file of an http(s) URI."""
    if root.startswith("abfs://"):
        from inferay.engine.storage.azure import BlobFiles

        return BlobFiles(root, access, policy)
    kind = S3Files if root.startswith("s3://") else HttpFile
    return kind(root, access, policy)


class S3Files:
    """Objects below `s3://BUCKET/PREFIX`."""

    def __init__(self, root: str, access: Access, policy: RetryPolicy = _POLICY) -> None:
        self._root = root
        self._fs, path = open_filesystem(root, access)
        is_chain = not access.place(root).access_key_id
        self._reader = Reader(self._fs, policy, is_refreshed=is_chain)
        self._bucket, _, prefix = path.partition("/")
        self._prefix = f"{prefix}/" if prefix else ""

    def list(self) -> Iterator[Found]:
        """Yield every object below the root, a page of it in memory at a time."""
        token: dict[str, str] = {}
        last = b""
        while True:
            page = self._call(self._root, "list_objects_v2", Prefix=self._prefix, **token)
            for entry in page.get("Contents", ()):
                key = entry["Key"]
                if key.encode() <= last:
                    raise InvalidInput(
                        f"{self._root} is not listed in the order of keys (a directory bucket?), "
                        "which an input needs; copy it to an ordinary bucket",
                        code="InputUnordered", target=self._root,
                    )
                last = key.encode()
                if not key.endswith("/"):   # what a console puts in place of a folder
                    path = key[len(self._prefix):]
                    yield Found(path, entry["Size"], bare(entry.get("ETag", "")))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def is_empty(self) -> bool:
        """Return whether there is no object below the root."""
        return next(self.list(), None) is None

    def stat(self, path: str) -> Found:
        """Return an object as it is now."""
        head = self._call(f"{self._root}/{path}", "head_object", Key=self._prefix + path)
        return Found(path, head["ContentLength"], bare(head.get("ETag", "")))

    def fetch(self, expected: Found, file: IO[bytes]) -> None:
        """Write the whole object; the first bytes that the file already holds count as fetched."""
        uri = f"{self._root}/{expected.path}"
        self._reader.run_on(uri, lambda: self._fetch(uri, expected, file), file)

    async def _fetch(self, uri: str, expected: Found, file: IO[bytes]) -> None:
        start = resume_at(file, expected)
        ranged = {"Range": f"bytes={start}-"} if start else {}
        answer = await self._fs._call_s3(
            "get_object", Bucket=self._bucket, Key=self._prefix + expected.path, **ranged
        )
        async with answer["Body"] as body:
            check(uri, expected, bare(answer.get("ETag", "")), start + answer["ContentLength"])
            while chunk := await body.read(CHUNK_BYTES):
                file.write(chunk)
        check_length(expected, file)

    def _call(self, uri: str, method: str, **options: str) -> Any:
        return self._reader.run(uri, lambda: self._fs._call_s3(
            method, Bucket=self._bucket, **options
        ))


class HttpFile:
    """The one file at an http(s) URI; its path is the last part of the URI's."""

    def __init__(self, uri: str, access: Access, policy: RetryPolicy = _POLICY) -> None:
        self._uri = uri
        self._fs, _ = open_filesystem(uri, access)
        self._reader = Reader(self._fs, policy, is_refreshed=False)

    def list(self) -> Iterator[Found]:
        """Yield the one file."""
        yield self.stat(self.name)

    def is_empty(self) -> bool:
        """Return False: a file that is not there cannot be read, which is an error."""
        return next(self.list(), None) is None

    @property
    def name(self) -> str:
        """The file's name, percent-decoded."""
        return posixpath.basename(unquote(urlsplit(self._uri).path)) or "file"

    def stat(self, path: str) -> Found:
        """Return the file as it is now; it is read once where the server does not tell its size."""
        return self._reader.run(self._uri, lambda: self._stat(path))

    def fetch(self, expected: Found, file: IO[bytes]) -> None:
        """Write the whole file; the first bytes that `file` already holds count as fetched."""
        self._reader.run_on(self._uri, lambda: self._fetch(expected, file), file)

    async def _stat(self, path: str) -> Found:
        # Not HEAD: signed URIs are often good for GET alone, and its headers may differ.
        async with self._get("bytes=0-0", statuses=(200, 206, 416)) as answer:
            if answer.status == 416:   # there is no first byte
                return Found(path, 0, _http_version(answer.headers))
            if answer.status == 206:
                size = answer.headers.get("Content-Range", "").rpartition("/")[2]
            else:
                size = answer.headers.get("Content-Length", "")
            size_bytes = int(size) if size.isdigit() else await self._count()
            return Found(path, size_bytes, _http_version(answer.headers))

    async def _count(self) -> int:
        async with self._get(None) as answer:
            return sum([len(chunk) async for chunk in answer.content.iter_chunked(CHUNK_BYTES)])

    async def _fetch(self, expected: Found, file: IO[bytes]) -> None:
        start = resume_at(file, expected)
        async with self._get(f"bytes={start}-" if start else None) as answer:
            if start and answer.status == 200:   # it knows no ranges
                start = 0
                file.seek(0)
                file.truncate()
            length = answer.headers.get("Content-Length")
            size = start + int(length) if length else expected.size_bytes
            check(self._uri, expected, _http_version(answer.headers), size)
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                file.write(chunk)
                if file.tell() > expected.size_bytes:
                    raise changed(self._uri, f"more than {expected.size_bytes} bytes")
        check_length(expected, file)

    @asynccontextmanager
    async def _get(
        self, wanted: str | None, *, statuses: tuple[int, ...] = (200, 206)
    ) -> AsyncIterator[Any]:
        session = await self._fs.set_session()
        headers = {"Range": wanted} if wanted else {}
        url = self._fs.encode_url(self._uri)
        async with session.get(url, headers=headers, max_redirects=REDIRECTS_MAX) as answer:
            if answer.status not in statuses:
                raise HttpStatusError(answer.status)
            yield answer


class Reader:
    """Runs requests on the event loop of one file system, and tries again what may pass."""

    def __init__(self, fs: Any, policy: RetryPolicy, *, is_refreshed: bool) -> None:
        self._fs = fs
        self._policy = policy
        self._is_refreshed = is_refreshed

    def run(self, uri: str, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what an attempt returns; blocks."""
        what = f"reading {redacted(uri)}"
        refresh = self._refresh if self._is_refreshed else None
        try:
            return retry(lambda: self._once(uri, attempt), what, policy=self._policy,
                         refresh=refresh)
        except Exception as error:
            named = of_file(uri, error)
            if named is error:
                raise
            raise named from error

    def run_on(
        self, uri: str, attempt: Callable[[], Coroutine[Any, Any, None]], file: IO[bytes]
    ) -> None:
        """Run an attempt that appends to a file; one that comes further begins a new budget."""
        furthest = 0
        while True:
            try:
                return self.run(uri, attempt)
            except StorageUnavailable:
                if file.tell() <= furthest:
                    raise
                furthest = file.tell()

    def _once(self, uri: str, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        from fsspec.asyn import sync

        try:
            return sync(self._fs.loop, attempt)   # type: ignore[no-any-return]
        except Exception as error:
            final = lasting(uri, error)
            if final is not None:
                raise final from None   # its cause would count as one that passes
            raise

    def _refresh(self) -> None:
        """Read the credentials of AWS's chain anew."""
        self._fs.connect(refresh=True)


def resume_at(file: IO[bytes], expected: Found) -> int:
    """Return where to go on with a file; one that has too much begins anew."""
    start = file.seek(0, 2)
    if start >= expected.size_bytes:
        file.seek(0)
        file.truncate()
        start = 0
    return start


def check(uri: str, expected: Found, version: str, size_bytes: int) -> None:
    """Check that an answer is about what was listed.

    Raises:
        ReadError: It has another version, or size.
    """
    if version != expected.version:
        raise changed(uri, f"version {version or 'none'} instead of {expected.version or 'none'}")
    if size_bytes != expected.size_bytes:
        raise changed(uri, f"{size_bytes} bytes instead of {expected.size_bytes}")


def check_length(expected: Found, file: IO[bytes]) -> None:
    """Check that all has come.

    Raises:
        EOFError: It has not.
    """
    if file.tell() != expected.size_bytes:
        raise EOFError(f"it ended after {file.tell()} of {expected.size_bytes} bytes")


def bare(etag: str) -> str:
    """Return an ETag without its quotes."""
    return etag.strip('"')


def _http_version(headers: Any) -> str:
    return str(headers.get("ETag") or headers.get("Last-Modified") or "")
