"""The input as a stream of files, in bytewise order of the whole relative path.

That is the order of S3's keys. A file system does not give it, so each folder's names are sorted
on their own, a folder under its name with `/` (so `a.txt` comes before `a/b`), and a folder with
more names than fit the memory bound is sorted outside memory (`storage.sorting`). Links are
followed inside the input only; what is no regular file is passed over.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from inferay.engine.batch.units import Unit
from inferay.engine.storage import Access, is_remote
from inferay.engine.storage.sorting import ITEMS_IN_MEMORY, in_order
from inferay.errors import InvalidInput


@dataclass
class Listing:
    """What a listing passed over, known once its stream has ended.

    Attributes:
        links_skipped: Links that lead out of the input, to nothing, or back to a parent.
        others_skipped: Sockets, pipes and devices.
    """

    links_skipped: int = 0
    others_skipped: int = 0


def list_input(
    path: str, input_type: str, seen: Listing | None = None, *, access: Access | None = None
) -> tuple[str, Iterator[Unit]]:
    """Return what the units' paths are relative to, and the units.

    Args:
        path: The input: an absolute local path, or a URI.
        input_type: `uri_file` or `uri_folder`.
        seen: Filled with what was passed over.
        access: How a remote input is reached.
    """
    root = input_root(path, input_type)
    if is_remote(path):
        return root, list_remote(root, path, access or Access())
    return root, list_folder(path, seen) if input_type == "uri_folder" else list_file(path)


def input_root(path: str, input_type: str) -> str:
    """Return what the units' paths are relative to: for an http(s) file, the file itself."""
    is_whole = input_type == "uri_folder" or path.startswith(("http://", "https://"))
    return path if is_whole else os.path.dirname(path)


def check_outside(output: str, source: str) -> None:
    """Check that what a job writes does not become part of its own input.

    Raises:
        InvalidInput: The output lies in the input, or is it; links count as what they lead to.
    """
    if is_remote(output) != is_remote(source):
        return
    inner, outer = output, source
    if not is_remote(output):
        inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    if inner == outer or inner.startswith(f"{outer.rstrip('/')}/"):
        raise InvalidInput(
            f"the output {output} lies in the input {source}; choose another output path",
            target="outputData",
        )


def list_remote(root: str, uri: str, access: Access) -> Iterator[Unit]:
    """Yield a unit per remote file, in bytewise order of the path, as they are listed.

    Args:
        root: What the units' paths are relative to: a prefix of a bucket, or the one http(s) file.
        uri: The input: the root itself, or the one object below it.
        access: How it is reached.

    Raises:
        InferayError: It cannot be listed.
    """
    from inferay.engine.storage.remote import open_remote  # brings clients, for who has any use

    remote = open_remote(root, access)
    found = remote.list() if uri == root else [remote.stat(os.path.basename(uri))]
    for one in found:
        yield Unit(one.path, one.size_bytes, one.version)


def list_file(path: str) -> Iterator[Unit]:
    """Yield the one unit of a `uri_file` input; its relative path is the file's name.

    Raises:
        InvalidInput: It does not exist, or is no regular file.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise InvalidInput(f"the input {path} is not a regular file", target=path)
    yield Unit(os.path.basename(path), found.st_size, found.st_mtime_ns)


def list_folder(
    root: str, seen: Listing | None = None, *, names_in_memory: int = ITEMS_IN_MEMORY
) -> Iterator[Unit]:
    """Yield a unit per regular file below the folder, in bytewise order of the relative path.

    Args:
        root: The folder; may itself be a link.
        seen: Filled with what was passed over.
        names_in_memory: Names of one folder that are sorted in memory at once.

    Raises:
        InvalidInput: The folder, or one below it, cannot be read.
    """
    seen = Listing() if seen is None else seen
    base = os.fsencode(os.path.realpath(root))
    stack = [(b"", _identity(base), in_order(_names(base, base, seen), names_in_memory))]
    while stack:
        prefix, _, names = stack[-1]
        name = next(names, None)
        if name is None:
            stack.pop()
        elif name.endswith(b"/"):
            folder = base + b"/" + prefix + name[:-1]
            identity = _identity(folder)
            if identity in (entry[1] for entry in stack):
                seen.links_skipped += 1
                continue
            inner = in_order(_names(folder, base, seen), names_in_memory)
            stack.append((prefix + name, identity, inner))
        else:
            path = base + b"/" + prefix + name
            try:
                found = os.stat(path)
            except OSError as error:
                raise _unreadable(os.fsdecode(path), error) from error
            yield Unit(os.fsdecode(prefix + name), found.st_size, found.st_mtime_ns)


def _names(folder: bytes, base: bytes, seen: Listing) -> Iterator[bytes]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink() and not _leads_inside(entry.path, base):
                    seen.links_skipped += 1
                elif entry.is_dir():
                    yield entry.name + b"/"
                elif entry.is_file():
                    yield entry.name
                else:
                    seen.others_skipped += 1
    except OSError as error:
        raise _unreadable(os.fsdecode(folder), error) from error


def _leads_inside(link: bytes, base: bytes) -> bool:
    target = os.path.realpath(link)
    return (target == base or target.startswith(base + b"/")) and os.path.exists(target)


def _identity(folder: bytes) -> tuple[int, int]:
    try:
        found = os.stat(folder)
    except OSError as error:
        raise _unreadable(os.fsdecode(folder), error) from error
    return found.st_dev, found.st_ino


def _unreadable(path: str, error: OSError) -> InvalidInput:
    return InvalidInput(
        f"cannot read the input {path}: {error.strerror}", code="InputUnreadable", target=path
    )
