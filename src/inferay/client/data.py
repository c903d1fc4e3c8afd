"""Data assets: what is local goes into a datastore first, once for each content."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from inferay.client.http import Http, segment
from inferay.client.resources import Assets
from inferay.config import BLOB_DATASTORE
from inferay.engine.resources import Data, is_local_path, resolve_local_paths
from inferay.errors import InvalidInput

T = TypeVar("T")

#: Told what is done ("hashing", "uploading"), and how many bytes of how many; by any thread.
Progress = Callable[[str, int, int], None]

#: Files that are read, or sent, at once.
FILES_AT_ONCE = 4

#: Bytes that are read from a file at once.
CHUNK_BYTES = 1 << 20


class DataAssets(Assets[Data]):
    """Versioned data assets."""

    def __init__(self, http: Http) -> None:
        super().__init__(http, "data", Data)

    def create_or_update(
        self, asset: Data, *, wait: bool = True, datastore: str = BLOB_DATASTORE,
        progress: Progress | None = None,
    ) -> Data:
        """Register a data asset; its next version where none is given.

        A local file or folder is put into the datastore first, unless it has the same content
        already: the version names what was there now, whatever becomes of the folder. A URI is
        registered as it is.

        Args:
            asset: What to register.
            wait: Ignored: when this returns, it is registered.
            datastore: Where local content goes.
            progress: Told how far the upload is.

        Raises:
            InvalidInput: The local path is not what the type says, or changes meanwhile.
            Conflict: The version exists with other content.
        """
        asset = resolve_local_paths(asset)
        if is_local_path(asset.path):
            uri = put_content(self._http, Path(asset.path), datastore, progress)
            asset = asset.model_copy(update={"path": uri})
        return super().create_or_update(asset)


@dataclass(frozen=True)
class _File:
    path: Path
    name: str   # below the datastore's folder of this content
    size_bytes: int


def put_content(
    http: Http, source: Path, datastore: str = BLOB_DATASTORE, progress: Progress | None = None
) -> str:
    """Return the address in a datastore of a copy of a local file or folder; blocks.

    Raises:
        InvalidInput: Something in it cannot be copied, or changes meanwhile.
        NotFound: There is no such datastore.
    """
    files = sorted(_files(source), key=lambda file: file.name.encode())
    size_bytes = sum(file.size_bytes for file in files)
    digests = _on_each(
        files, lambda file, tell: _digest(file, tell), "hashing", size_bytes, progress
    )
    content = [
        [file.name, file.size_bytes, found] for file, found in zip(files, digests, strict=True)
    ]
    address = f"/v1/datastores/{segment(datastore)}/uploads/{_hash(content)}"
    there = http.get(address)
    if (there["files"], there["sizeBytes"]) != (len(files), size_bytes):
        sha256 = dict(zip(files, digests, strict=True))

        def send(file: _File, tell: Callable[[int], None]) -> None:
            to = f"{address}/{quote(file.name)}?sha256={sha256[file]}"
            http.upload(to, _chunks(file, tell), {"Content-Length": str(file.size_bytes)})

        _on_each(files, send, "uploading", size_bytes, progress)
    return f"{there['uri']}/{source.name}"


def _hash(content: list[list[object]]) -> str:
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def _on_each(
    files: list[_File], work: Callable[[_File, Callable[[int], None]], T], what: str,
    size_bytes: int, progress: Progress | None,
) -> list[T]:
    """Return what `work` makes of each file, a few at a time."""
    done_bytes, lock = 0, threading.Lock()

    def tell(more_bytes: int) -> None:
        nonlocal done_bytes
        with lock:
            done_bytes += more_bytes
            if progress is not None:
                progress(what, done_bytes, size_bytes)

    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix=what) as threads:
        try:
            return list(threads.map(lambda file: work(file, tell), files))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _files(source: Path) -> Iterator[_File]:
    if source.is_file():
        yield _file(source, source.parent)
    for folder, folders, names in os.walk(source):
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                raise InvalidInput(
                    f"{os.path.join(folder, name)} is a link to a folder, which is not uploaded; "
                    "put a copy in its place", target="path",
                )
        for name in names:
            yield _file(Path(folder, name), source.parent)


def _file(path: Path, parent: Path) -> _File:
    name = path.relative_to(parent).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InvalidInput(
            f"{name!r} cannot be uploaded: names in a datastore are UTF-8; rename the file",
            code="NameNotAllowed", target="path",
        ) from None
    return _File(path, name, path.stat().st_size)


def _digest(file: _File, tell: Callable[[int], None]) -> str:
    found = hashlib.sha256()
    for chunk in _chunks(file, tell):
        found.update(chunk)
    return found.hexdigest()


def _chunks(file: _File, tell: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the bytes that the file had when it was listed."""
    left = file.size_bytes
    with open(file.path, "rb") as source:
        while left:
            chunk = source.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise InvalidInput(
                    f"{file.path} became shorter while it was uploaded; leave it as it is until "
                    "then",
                    code="InputChanged", target="path",
                )
            left -= len(chunk)
            yield chunk
            tell(len(chunk))
