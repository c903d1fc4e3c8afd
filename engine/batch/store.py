"""Named bytes with create-only put: what manifest, journal, segments and output are kept in.

Covers local disk and memory; `object_store` has S3, `blob_store` Azure. Where `can_append` is
False, there are no logs: what would be one is a sequence of create-only objects.

Nothing here knows what the bytes mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeGuard

from inferay.engine.storage import Access, is_remote, open_filesystem, redacted
from inferay.errors import InvalidInput

#: (name, first byte, one past the last or None for the end).
ByteRange = tuple[str, int, int | None]

#: How the hidden files begin that a local store writes before they get their name.
ASIDE = ".inferay-"


class Log(Protocol):
    """An append-only sequence of bytes with one writer."""

    def append(self, data: bytes) -> None:
        """Append the bytes; return once they are durable."""

    def close(self) -> None:
        """Release what the writer holds; idempotent."""


class Store(Protocol):
    """Named bytes. Names are relative paths with `/`; all calls block until durable.

    Attributes:
        can_append: Whether there are logs (`has_logs`).
    """

    can_append: bool

    def create(self, name: str, data: bytes) -> None:
        """Put the bytes under a name that is free, whole or not at all.

        Raises:
            FileExistsError: The name is taken; it was not changed.
        """

    def replace(self, name: str, data: bytes) -> None:
        """Put the bytes under the name, whole or not at all, whatever was there."""

    def create_stream(
        self, name: str, chunks: Iterable[bytes], size_bytes: int | None = None
    ) -> None:
        """Put the joined chunks under a name that is free, whole or not at all.

        Args:
            name: Of the whole.
            chunks: Taken as they are needed; few are held.
            size_bytes: Of all chunks together, where it is known.

        Raises:
            FileExistsError: The name is taken; it was not changed.
        """

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes [start, stop) of the name.

        Raises:
            FileNotFoundError: Nothing has that name.
        """

    def read_each(self, ranges: Iterable[ByteRange]) -> Iterator[bytes]:
        """Yield the bytes of each range, in order; a few of the next ones are read ahead.

        So a range has to be small enough that a dozen of them fit in memory.

        Raises:
            FileNotFoundError: Nothing has one of the names.
        """

    def exists(self, name: str) -> bool:
        """Return whether something has that name."""

    def remove(self, name: str) -> None:
        """Delete the name; idempotent."""

    def names(self, prefix: str) -> list[str]:
        """Return the names that start with the prefix, in bytewise order."""

    def delete(self, prefix: str) -> None:
        """Delete every name below the folder `prefix`; idempotent."""

    def sweep(self) -> None:
        """Remove what is no name yet, of writers that died; one that lives fails."""


class LogStore(Store, Protocol):
    """A store that has logs."""

    def create_log(self, name: str, first: bytes) -> Log:
        """Create a log that begins with these bytes, whole or not at all.

        Raises:
            FileExistsError: The name is taken; it was not changed.
        """


def has_logs(store: Store) -> TypeGuard[LogStore]:
    """Return whether the store has logs."""
    return store.can_append


class LocalStore:
    """A store in a folder of a local (or mounted) file system."""

    can_append = True

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Return where the name lies on disk."""
        return self.root / name

    def create(self, name: str, data: bytes) -> None:
        """See `Store.create`: written aside, fsynced, then linked, which fails if taken."""
        self._publish(name, (data,), os.link)

    def replace(self, name: str, data: bytes) -> None:
        """See `Store.replace`: written aside, fsynced, renamed."""
        self._publish(name, (data,), os.replace)

    def create_stream(
        self, name: str, chunks: Iterable[bytes], size_bytes: int | None = None
    ) -> None:
        """See `Store.create_stream`."""
        self._publish(name, chunks, os.link)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """See `Store.read`."""
        with open(self.path(name), "rb") as file:
            file.seek(start)
            return file.read(-1 if stop is None else max(0, stop - start))

    def read_each(self, ranges: Iterable[ByteRange]) -> Iterator[bytes]:
        """See `Store.read_each`; the disk reads ahead by itself."""
        return (self.read(*wanted) for wanted in ranges)

    def names(self, prefix: str) -> list[str]:
        """See `Store.names`; hidden files, which writes in progress leave, are not names."""
        folder = self.path(prefix) if prefix.endswith("/") else self.path(prefix).parent
        found = []
        for parent, _, files in os.walk(folder):
            for file in files:
                name = os.path.relpath(os.path.join(parent, file), self.root)
                if not file.startswith(".") and name.startswith(prefix):
                    found.append(name)
        return sorted(found, key=os.fsencode)

    def create_log(self, name: str, first: bytes) -> LocalLog:
        """See `Store.create_log`."""
        self.create(name, first)
        return LocalLog(self.path(name))

    def delete(self, prefix: str) -> None:
        """See `Store.delete`."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path(prefix))

    def sweep(self) -> None:
        """See `Store.sweep`."""
        for parent, _, files in os.walk(self.root):
            for file in files:
                if file.startswith(ASIDE):
                    Path(parent, file).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""
        return os.path.lexists(self.path(name))

    def remove(self, name: str) -> None:
        """See `Store.remove`."""
        self.path(name).unlink(missing_ok=True)

    def _publish(
        self, name: str, chunks: Iterable[bytes], move: Callable[[str, str], None]
    ) -> None:
        path = self.path(name)
        make_folder(path.parent)
        aside = f"{path.parent}/{ASIDE}{os.urandom(16).hex()}"   # a name may have 255 bytes itself
        try:
            with open(aside, "xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            move(aside, str(path))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
        sync_folder(path.parent)


class LocalLog:
    """A log that is one file; `append` ends with fdatasync."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (`close` closes it)

    def append(self, data: bytes) -> None:
        """See `Log.append`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._file.fileno(), view) :]
        sync_data(self._file.fileno())

    def close(self) -> None:
        """See `Log.close`."""
        self._file.close()


class MemoryStore:
    """A store in memory, for tests of the protocol; it forgets everything with the process.

    Args:
        can_append: False: it has no logs, as an object store.
    """

    def __init__(self, *, can_append: bool = True) -> None:
        self.can_append = can_append
        self._bytes: dict[str, bytearray] = {}
        self._lock = threading.Lock()

    def create(self, name: str, data: bytes) -> None:
        """See `Store.create`."""
        with self._lock:
            if name in self._bytes:
                raise FileExistsError(name)
            self._bytes[name] = bytearray(data)

    def replace(self, name: str, data: bytes) -> None:
        """See `Store.replace`."""
        with self._lock:
            self._bytes[name] = bytearray(data)

    def create_stream(
        self, name: str, chunks: Iterable[bytes], size_bytes: int | None = None
    ) -> None:
        """See `Store.create_stream`."""
        self.create(name, b"".join(chunks))

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""
        with self._lock:
            return name in self._bytes

    def remove(self, name: str) -> None:
        """See `Store.remove`."""
        with self._lock:
            self._bytes.pop(name, None)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """See `Store.read`."""
        with self._lock:
            if name not in self._bytes:
                raise FileNotFoundError(name)
            return bytes(self._bytes[name][start:stop])

    def read_each(self, ranges: Iterable[ByteRange]) -> Iterator[bytes]:
        """See `Store.read_each`."""
        return (self.read(*wanted) for wanted in ranges)

    def names(self, prefix: str) -> list[str]:
        """See `Store.names`."""
        with self._lock:
            return sorted((n for n in self._bytes if n.startswith(prefix)), key=os.fsencode)

    def create_log(self, name: str, first: bytes) -> MemoryLog:
        """See `Store.create_log`."""
        self.create(name, first)
        return MemoryLog(self._bytes[name])

    def delete(self, prefix: str) -> None:
        """See `Store.delete`."""
        for name in self.names(prefix.rstrip("/") + "/"):
            with self._lock:
                del self._bytes[name]

    def sweep(self) -> None:
        """See `Store.sweep`: a name is put in one step."""


class MemoryLog:
    """A log of a `MemoryStore`."""

    def __init__(self, data: bytearray) -> None:
        self._data = data

    def append(self, data: bytes) -> None:
        """See `Log.append`."""
        self._data += data

    def close(self) -> None:
        """See `Log.close`."""


def open_store(place: str, access: Access) -> Store:
    """Return the store in a local folder, or below a bucket's URI; nothing is sent or made.

    Raises:
        InvalidInput: The place is of another scheme.
    """
    if not is_remote(place):
        return LocalStore(Path(place))
    # Both bring clients, for those who use them.
    if place.startswith("s3://"):
        from inferay.engine.batch.object_store import ObjectStore

        return ObjectStore(*open_filesystem(place, access))
    if place.startswith("abfs://"):
        from inferay.engine.batch.blob_store import BlobStore

        return BlobStore(*open_filesystem(place, access))
    raise InvalidInput(
        f"{redacted(place)}: nothing can be written there; give a local path, s3://BUCKET/KEY or "
        "a path in a datastore",
        target=redacted(place),
    )


def is_full(error: BaseException) -> bool:
    """Return whether the error says that no space is left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that there are not yet, durable; idempotent."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError:   # which would mean that a name is taken, not that it cannot be
            raise NotADirectoryError(errno.ENOTDIR, "this is a file", str(folder)) from None
        sync_folder(folder.parent)


def sync_data(descriptor: int) -> None:
    """Make a file's bytes durable (fdatasync, or fsync where there is none: macOS)."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
