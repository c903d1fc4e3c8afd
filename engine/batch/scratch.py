"""A worker's scratch folder: files that were fetched, until they are scored, and files to upload.

The process that uses a folder holds a lock on it. Its parent removes the folder when the process
has ended; where the parent was killed too, the next worker on the machine does.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

#: How the folders' names end, beside their workers' own.
SUFFIX = ".scratch"

#: Bytes of the longest name that file systems take.
NAME_BYTES_MAX = 255

_LOCK = "lock"


class Scratch:
    """The folder; made here, with whatever killed workers left beside it removed.

    Attributes:
        folder: Where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with open(folder.parent / f".inferay-{os.getuid()}.lock", "ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)   # one at a time: a new folder has no lock yet
            _remove_abandoned(folder.parent)
            folder.mkdir(0o700)
            self._lock = _lock(folder)

    def make(self, name: str) -> Path:
        """Return a new folder in it."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    def close(self) -> None:
        """Remove the folder; idempotent."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def local_name(path: str) -> str:
    """Return where a remote path lies below a scratch folder: the same, as far as files allow.

    Segments that would lead elsewhere are written out, and those too long lose their beginning.
    """
    return "/".join(_local_segment(segment) for segment in path.split("/"))


def _local_segment(segment: str) -> str:
    if segment in ("", ".", ".."):
        return segment.replace(".", "%2E") or "%"
    name = os.fsencode(segment.replace("\0", "%00"))
    return os.fsdecode(name[-NAME_BYTES_MAX:].decode(errors="ignore").encode())


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"inferay-worker-*{SUFFIX}"):
        try:
            lock = _lock(folder)
        except OSError:   # another user's, or gone meanwhile
            continue
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Return a descriptor that holds the folder's lock, or None if another process has it."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
