"""Files of the input, read in ranges by several threads at once."""

from __future__ import annotations

import io
import os
from typing import IO, Any

from inferay.engine.batch.units import Unit
from inferay.engine.storage import Access, is_bucket, is_remote, open_filesystem
from inferay.engine.storage.remote import Remote, open_remote
from inferay.engine.storage.retries import retry
from inferay.errors import InvalidInput, JobError

#: Read from a remote file at once by what reads it as a stream.
STREAM_BYTES = 1 << 20


class LocalSource:
    """A file of this machine, open until `close`."""

    def __init__(self, path: str, unit: Unit) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        found = os.fstat(self._descriptor)
        self.size_bytes = found.st_size
        if (found.st_size, found.st_mtime_ns) != (unit.size_bytes, unit.version):
            self.close()
            raise changed(path, unit)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop), fewer at the end."""
        found = os.pread(self._descriptor, stop - start, start)
        wanted = min(stop, self.size_bytes) - start
        while len(found) < wanted and (
            more := os.pread(self._descriptor, wanted - len(found), start + len(found))
        ):   # one call reads at most 2 GiB
            found += more
        return found

    def open(self) -> IO[bytes]:
        """Return the file as a stream of its own."""
        return open(self._path, "rb")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class RemoteSource:
    """An object, of which only the ranges that are asked for are fetched."""

    def __init__(self, filesystem: Any, path: str, unit: Unit) -> None:
        self._filesystem = filesystem
        self._path = path
        self.size_bytes = unit.size_bytes

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop), fewer at the end."""
        stop = min(stop, self.size_bytes)
        if start >= stop:
            return b""
        found: bytes = retry(
            lambda: self._filesystem.cat_file(self._path, start=start, end=stop),
            f"reading {self._path}",
        )
        if len(found) != stop - start:
            raise InvalidInput(
                f"{self._path}: bytes {start} to {stop} were asked for, and {len(found)} bytes "
                "came: its server knows no ranges, which tables take; copy the file elsewhere",
                code="NoRanges", target=self._path,
            )
        return found

    def open(self) -> IO[bytes]:
        """Return the file as a stream of its own."""
        return io.BufferedReader(_RangeStream(self), STREAM_BYTES)

    def close(self) -> None:
        """Nothing is held."""


class _RangeStream(io.RawIOBase):
    """A remote file as a stream that can seek."""

    def __init__(self, source: RemoteSource) -> None:
        self._source = source
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size_bytes}
        self._at = base[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        found = self._source.read(self._at, self._at + len(buffer))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


class Sources:
    """Opens the files of one input.

    Args:
        root: What the units' paths are relative to: a local folder, or a URI.
        access: Endpoints and credentials.
    """

    def __init__(self, root: str, access: Access | None = None) -> None:
        self._root = root
        self._access = access or Access()
        self._filesystem: Any = None
        self._remote: Remote | None = None

    def open(self, unit: Unit) -> LocalSource | RemoteSource:
        """Open the unit's file.

        Raises:
            JobError: It is not the one that was listed.
            OSError: It cannot be read.
        """
        if not is_remote(self._root):
            return LocalSource(f"{self._root}/{unit.path}", unit)
        if self._remote is None:
            self._remote = open_remote(self._root, self._access)
            self._filesystem, self._place = open_filesystem(self._root, self._access)
        found = self._remote.stat(unit.path)
        if (found.size_bytes, found.version) != (unit.size_bytes, unit.version):
            raise changed(f"{self._root}/{unit.path}", unit)
        is_folder = is_bucket(self._root)   # an http(s) root is the file itself
        path = f"{self._place.rstrip('/')}/{unit.path}" if is_folder else self._place
        return RemoteSource(self._filesystem, path, unit)


def changed(path: str, unit: Unit) -> JobError:
    """Return the error about a file that is not the one that was listed."""
    return JobError(
        f"{path} was changed after it was listed; leave the input as it is while a job runs, and "
        "invoke again",
        code="InputChanged", target=unit.path,
    )
