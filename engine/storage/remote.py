"""Reading remote inputs: listed in key order, looked at, and fetched into files.

Every call blocks and may be made from any thread. Fetching goes on after a broken connection where
it stopped, where the server knows ranges, and begins again where not.
"""

from __future__ import annotations

import errno
import posixpath
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from inferay.engine.storage.access import Access
from inferay.engine.storage.filesystems import REDIRECTS_MAX, open_filesystem
from inferay.engine.storage.read_errors import ReadError, changed, of_exception, of_status

#: Bytes that are read from a connection at once.
CHUNK_BYTES = 1 << 20

T = TypeVar("T")


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
            ReadError: It cannot be listed.
        """

    def stat(self, path: str) -> Found:
        """Return a file as it is now.

        Raises:
            ReadError: It does not exist, or cannot be read.
        """

    def fetch(self, expected: Found, file: IO[bytes]) -> None:
        """Write the whole file; the first bytes that it already holds count as fetched.

        One attempt: call it again with the same `file` to go on.

        Raises:
            OSError: The disk is full.
            ReadError: The file is not the one expected, or cannot be read.
        """


def open_remote(root: str, access: Access) -> Remote:
    """Return what reads below the root: `s3://…`, or the one file that an http(s) URI names."""
    return S3Files(root, access) if root.startswith("s3://") else HttpFile(root, access)


class S3Files:
    """Objects below `s3://BUCKET/PREFIX`."""

    def __init__(self, root: str, access: Access) -> None:
        self._root = root
        self._fs, path = open_filesystem(root, access)
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
                    raise ReadError(
                        self._root, "the store does not list in the order of keys (a directory "
                        "bucket?)", code="InputDenied",
                    )
                last = key.encode()
                if not key.endswith("/"):   # what a console puts in place of a folder
                    path = key[len(self._prefix):]
                    yield Found(path, entry["Size"], _bare(entry.get("ETag", "")))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def stat(self, path: str) -> Found:
        """Return an object as it is now."""
        head = self._call(f"{self._root}/{path}", "head_object", Key=self._prefix + path)
        return Found(path, head["ContentLength"], _bare(head.get("ETag", "")))

    def fetch(self, expected: Found, file: IO[bytes]) -> None:
        """Write the whole object; the first bytes that the file already holds count as fetched."""
        uri = f"{self._root}/{expected.path}"
        _run(uri, self._fs, lambda: self._fetch(uri, expected, file))

    async def _fetch(self, uri: str, expected: Found, file: IO[bytes]) -> None:
        start = _resume_at(file, expected)
        ranged = {"Range": f"bytes={start}-"} if start else {}
        answer = await self._fs._call_s3(
            "get_object", Bucket=self._bucket, Key=self._prefix + expected.path, **ranged
        )
        async with answer["Body"] as body:
            _check(uri, expected, _bare(answer.get("ETag", "")), start + answer["ContentLength"])
            while chunk := await body.read(CHUNK_BYTES):
                file.write(chunk)
        _check_length(uri, expected, file)

    def _call(self, uri: str, method: str, **options: str) -> Any:
        return _run(uri, self._fs, lambda: self._fs._call_s3(
            method, Bucket=self._bucket, **options
        ))


class HttpFile:
    """The one file at an http(s) URI; its path is the last part of the URI's."""

    def __init__(self, uri: str, access: Access) -> None:
        self._uri = uri
        self._fs, _ = open_filesystem(uri, access)

    def list(self) -> Iterator[Found]:
        """Yield the one file."""
        yield self.stat(self.name)

    @property
    def name(self) -> str:
        """The file's name, percent-decoded."""
        return posixpath.basename(unquote(urlsplit(self._uri).path)) or "file"

    def stat(self, path: str) -> Found:
        """Return the file as it is now; it is read once where the server does not tell its size."""
        return _run(self._uri, self._fs, lambda: self._stat(path))

    def fetch(self, expected: Found, file: IO[bytes]) -> None:
        """Write the whole file; the first bytes that `file` already holds count as fetched."""
        _run(self._uri, self._fs, lambda: self._fetch(expected, file))

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
        start = _resume_at(file, expected)
        async with self._get(f"bytes={start}-" if start else None) as answer:
            if start and answer.status == 200:   # it knows no ranges
                start = 0
                file.seek(0)
                file.truncate()
            length = answer.headers.get("Content-Length")
            size = start + int(length) if length else expected.size_bytes
            _check(self._uri, expected, _http_version(answer.headers), size)
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                file.write(chunk)
                if file.tell() > expected.size_bytes:
                    raise changed(self._uri, f"more than {expected.size_bytes} bytes")
        _check_length(self._uri, expected, file)

    @asynccontextmanager
    async def _get(
        self, wanted: str | None, *, statuses: tuple[int, ...] = (200, 206)
    ) -> AsyncIterator[Any]:
        session = await self._fs.set_session()
        headers = {"Range": wanted} if wanted else {}
        url = self._fs.encode_url(self._uri)
        async with session.get(url, headers=headers, max_redirects=REDIRECTS_MAX) as answer:
            if answer.status not in statuses:
                raise of_status(self._uri, answer.status)
            yield answer


def _run(uri: str, fs: Any, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine on the file system's loop, and wait; its exceptions are ours."""
    from fsspec.asyn import sync

    try:
        return sync(fs.loop, attempt)   # type: ignore[no-any-return]
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise   # of the disk that is written to, and not about the URI
        raise of_exception(uri, error) from error


def _resume_at(file: IO[bytes], expected: Found) -> int:
    start = file.seek(0, 2)
    if start >= expected.size_bytes:
        file.seek(0)
        file.truncate()
        start = 0
    return start


def _check(uri: str, expected: Found, version: str, size_bytes: int) -> None:
    if version != expected.version:
        raise changed(uri, f"version {version or 'none'} instead of {expected.version or 'none'}")
    if size_bytes != expected.size_bytes:
        raise changed(uri, f"{size_bytes} bytes instead of {expected.size_bytes}")


def _check_length(uri: str, expected: Found, file: IO[bytes]) -> None:
    if file.tell() != expected.size_bytes:
        raise ReadError(
            uri, f"the connection ended after {file.tell()} of {expected.size_bytes} bytes",
            is_transient=True,
        )


def _bare(etag: str) -> str:
    return etag.strip('"')


def _http_version(headers: Any) -> str:
    return str(headers.get("ETag") or headers.get("Last-Modified") or "")
