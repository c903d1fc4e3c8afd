"""Local files and folders of data assets: put into a datastore, by their content.

What has the same content has the same place, `LocalUpload/HASH/NAME`, as Azure's clients have it;
so nothing is sent twice, and what a version names never changes. The client computes the hash, and
every file is checked against its own while it is written.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sqlalchemy.orm import Session

from inferay.control import storage
from inferay.control.context import Context
from inferay.control.tables import Datastore
from inferay.engine.batch.listing import list_folder
from inferay.engine.batch.store import open_store
from inferay.engine.storage import datastore_uri, is_remote
from inferay.engine.storage.remote import open_remote
from inferay.errors import InvalidInput, NotFound, nearest

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Place:
    """Where the content of one hash lies in a datastore.

    Raises:
        NotFound: There is no such datastore.
        InvalidInput: The hash is none.
    """

    def __init__(self, context: Context, session: Session, datastore: str, digest: str) -> None:
        row = session.get(Datastore, datastore)
        if row is None:
            hint = nearest(datastore, storage.roots(session))
            raise NotFound(f"there is no datastore '{datastore}'{hint}", target=datastore)
        check_digest(digest)
        self.uri = datastore_uri(datastore, f"LocalUpload/{digest}")
        self._root = storage.root_of(row.properties).rstrip("/") + f"/LocalUpload/{digest}"
        self._access = storage.access_to(context, session, [self._root])

    def count(self) -> tuple[int, int]:
        """Return how many files are there, and their bytes; blocks.

        Raises:
            InferayError: The datastore cannot be listed.
        """
        files = size_bytes = 0
        for found in self._sizes():
            files += 1
            size_bytes += found
        return files, size_bytes

    def put(self, path: str, chunks: Iterable[bytes], digest: str, size_bytes: int) -> None:
        """Write a file, whole or not at all; one that is there stays. Blocks.

        Raises:
            InvalidInput: The path is no file's, or the bytes are not those that were announced.
            InferayError: The datastore cannot be written.
        """
        if "\0" in path or {"", ".", ".."} & set(path.split("/")):
            raise InvalidInput(f"'{path}' is no relative path without '..'", target=path)
        try:
            open_store(self._root, self._access).create_stream(
                path, _checked(path, chunks, digest, size_bytes), size_bytes
            )
        except FileExistsError:
            return   # the same content: the place is named by it

    def _sizes(self) -> Iterator[int]:
        if is_remote(self._root):
            return (found.size_bytes for found in open_remote(self._root, self._access).list())
        if not os.path.isdir(self._root):
            return iter(())
        return (found.size_bytes for found in list_folder(self._root))


def check_digest(digest: str) -> None:
    """Check a SHA-256 as it stands in addresses.

    Raises:
        InvalidInput: It is none.
    """
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"'{digest[:100]}' is no SHA-256 in lower-case hex", target="hash")


def check_type(path: str, data_type: str) -> None:
    """Check that a local path is what a data asset of this type names.

    Raises:
        InvalidInput: It is not.
    """
    is_folder = os.path.isdir(path)
    if is_folder == (data_type == "uri_file"):
        is_, type_ = ("a folder", "uri_folder") if is_folder else ("a file", "uri_file")
        raise InvalidInput(
            f"dataUri: {path} is {is_}, but its type is {data_type}; give --type {type_}",
            target="dataUri",
        )
    if data_type == "mltable" and not Path(path, "MLTable").is_file():
        raise InvalidInput(
            f"dataUri: {path} has no file 'MLTable', which a data asset of type mltable needs",
            target="dataUri",
        )


def _checked(path: str, chunks: Iterable[bytes], digest: str, size_bytes: int) -> Iterator[bytes]:
    found, length = hashlib.sha256(), 0
    for chunk in chunks:
        found.update(chunk)
        length += len(chunk)
        yield chunk
    if (found.hexdigest(), length) != (digest, size_bytes):
        raise InvalidInput(
            f"{path} changed while it was uploaded; leave it as it is until then, and create the "
            "data asset again",
            code="InputChanged", target=path,
        )
