"""Files that user code writes under `AZUREML_BI_OUTPUT_PATH`, kept exactly once.

The folder is private to a worker and constant for its life. After each call of `run()`, what
appeared belongs to that call: it is moved aside into the job's store, with its size and checksum,
and is published from the journal at the end. A failed call's files are thrown away.

On an object store, a file is uploaded when its call has ended, so what is written to it later would
be lost in silence: a file that the script still holds open then is refused. (Files of `init()` are
kept as they were when it ended.)

The check costs one `stat` per folder: the time stamp of each folder is set to 0 after a look, so
that any change shows, however soon it comes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from inferay.engine.batch.messages import StoredFile
from inferay.engine.batch.store import LocalStore, Store, make_folder, sync_folder

#: Of a file, so much is read at once.
READ_BYTES = 1 << 20


class SharedFileError(Exception):
    """Raised when a file that outlives one call of `run()` was written to by another call."""


class Staging:
    """A worker's private output folder.

    Args:
        folder: Where; in the store itself, or, where that is remote, on a disk of this machine.
        store: The job's.
        stored_prefix: Of the names of what is kept there.
    """

    def __init__(self, folder: Path, store: Store, stored_prefix: str) -> None:
        self.folder = folder
        self._store = store
        self._prefix = stored_prefix
        self._count = 0
        self._seen: dict[str, tuple[int, int]] = {}
        folder.mkdir(parents=True)
        self._folders = [str(folder)]
        self._settle()

    def keep_init_files(self) -> tuple[StoredFile, ...]:
        """Keep what `init()` wrote; the files stay, for the script may read them again.

        What is kept is the same file, so that what is written to it later shows at the end.
        """
        kept = []
        for name in self._files():
            kept.append(self._store_file(name, -1, is_shared=True))
            self._seen[name] = _state(self.folder / name)
        if kept:
            self._make_names_durable()
        self._settle()
        return tuple(kept)

    def take(self, mini_batch: int) -> tuple[StoredFile, ...]:
        """Move aside what the call of `run()` that just ended wrote, and return it.

        Raises:
            SharedFileError: It wrote to a file of `init()` or of an earlier call.
        """
        if not self._is_changed():
            return ()
        taken = []
        for name in self._files():
            if name in self._seen:
                state = _state(self.folder / name)
                if self._seen[name] != state:
                    self._seen[name] = state   # the next call is not to blame for this one
                    raise SharedFileError(
                        f"run() wrote to '{name}', which outlives one mini-batch; write one file "
                        "per mini-batch (its name may come from the mini-batch's first file), or "
                        "return the rows"
                    )
            else:
                taken.append(self._store_file(name, mini_batch, is_shared=False))
        if taken:
            self._make_names_durable()
        self._settle()
        return tuple(taken)

    def discard(self) -> None:
        """Throw away what a failed call wrote."""
        if self._is_changed():
            for name in self._files():
                if name not in self._seen:
                    os.unlink(self.folder / name)
            self._settle()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_changed(self) -> bool:
        try:
            for folder in self._folders:   # one, nearly always, after each call of `run()`
                if os.stat(folder).st_mtime_ns:
                    return True
        except FileNotFoundError:   # the script removed a folder
            return True
        return bool(self._seen) and any(
            _state(self.folder / name) != seen for name, seen in self._seen.items()
        )

    def _files(self) -> list[str]:
        found = []
        for parent, folders, files in os.walk(self.folder):
            folders.sort()
            for file in sorted(files):
                found.append(os.path.relpath(os.path.join(parent, file), self.folder))
        return found

    def _settle(self) -> None:
        self.folder.mkdir(exist_ok=True)   # the script may have removed it
        self._folders = [parent for parent, _, _ in os.walk(self.folder)]
        for folder in self._folders:
            os.utime(folder, ns=(0, 0))

    def _store_file(self, name: str, mini_batch: int, *, is_shared: bool) -> StoredFile:
        self._count += 1
        stored = f"{self._prefix}/{self._count:06d}"
        source = self.folder / name
        if isinstance(self._store, LocalStore):
            size_bytes, sha256 = _move(source, self._store.path(stored), is_shared=is_shared)
        else:
            size_bytes, sha256 = self._upload(source, stored, is_shared=is_shared)
        return StoredFile(name, size_bytes, sha256, stored, mini_batch)

    def _make_names_durable(self) -> None:
        if isinstance(self._store, LocalStore):   # an object is durable with its name
            sync_folder(self._store.path(self._prefix))

    def _upload(self, source: Path, stored: str, *, is_shared: bool) -> tuple[int, str]:
        if not is_shared and _is_open(source):
            raise SharedFileError(
                f"run() left '{source.relative_to(self.folder)}' open; close it before run() "
                "returns, or return the rows"
            )
        digest, size_bytes = hashlib.sha256(), 0

        def chunks() -> Iterator[bytes]:
            nonlocal size_bytes
            with open(source, "rb") as file:
                while chunk := file.read(READ_BYTES):
                    digest.update(chunk)
                    size_bytes += len(chunk)
                    yield chunk

        self._store.create_stream(stored, chunks(), os.stat(source).st_size)
        if not is_shared:
            os.unlink(source)
        return size_bytes, digest.hexdigest()


def _move(source: Path, target: Path, *, is_shared: bool) -> tuple[int, str]:
    make_folder(target.parent)
    (os.link if is_shared else os.rename)(source, target)
    with open(target, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size, digest


def _is_open(path: Path) -> bool:
    """Return whether this process has the file open (on Linux; elsewhere False)."""
    wanted = os.stat(path)
    folder = "/proc/self/fd"
    for descriptor in os.listdir(folder) if os.path.isdir(folder) else ():
        try:
            found = os.stat(f"{folder}/{descriptor}")
        except OSError:   # the listing's own, closed by now, or of another thread
            continue
        if os.path.samestat(found, wanted):
            return True
    return False


def _state(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return (-1, -1)
    return found.st_size, found.st_mtime_ns
