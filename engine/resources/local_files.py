"""Reading one local file without ever hanging or filling memory.

A FIFO would block the reader for ever and a device has no end, so only regular files are opened,
and no more than the caller's limit is read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: What stands in the way of reading, by the file's type bits.
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnreadableFileError(Exception):
    """Raised when a file can't be read; the message is the reason, for an InvalidInput."""


def file_kind(mode: int) -> str:
    """Return `a directory`, `a FIFO` and so on for the mode of a file that is not regular."""
    return _KINDS.get(stat.S_IFMT(mode), "not a regular file")


def absence(path: Path) -> str:
    """Return why a path that could not be found is not there: missing, or a dangling link."""
    try:
        target = os.readlink(path)
    except OSError:
        return "no such file or directory"
    return f"a link to {target}, which does not exist"


def read_regular_file(path: Path, bytes_max: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        UnreadableFileError: It is missing, no regular file, unreadable, or larger than `bytes_max`.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise UnreadableFileError(f"{file_kind(mode)}, expected a file")
        with open(path, "rb") as stream:
            data = stream.read(bytes_max + 1)
    except FileNotFoundError:
        raise UnreadableFileError(absence(path)) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UnreadableFileError(
            f"unreadable ({getattr(error, 'strerror', None) or error})"
        ) from None
    if len(data) > bytes_max:
        raise UnreadableFileError(f"larger than the limit of {bytes_max} bytes")
    return data
