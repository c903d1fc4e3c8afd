"""Copying what a URI names, a file or a folder, onto this machine: models and code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from inferay.engine.storage.access import Access
from inferay.engine.storage.read_errors import ReadError
from inferay.engine.storage.remote import Found, Remote, open_remote
from inferay.engine.storage.retries import RetryPolicy
from inferay.engine.storage.uris import is_bucket
from inferay.errors import InvalidInput

#: Files that are copied at once.
FETCHES_MAX = 8

#: Of a check that somebody waits for: what does not answer twice is named.
CHECK_POLICY = RetryPolicy(attempts_max=2)


def download(uri: str, access: Access, target: Path) -> None:
    """Copy the file, or the folder with all below it, to `target`, which must not exist; blocks.

    Raises:
        ReadError: There is nothing, or a file cannot be read.
        InvalidInput: A key is no path that a folder can hold.
        InferayError: Nothing there can be read.
    """
    remote, files, is_file = _find(uri, access, RetryPolicy())
    with ThreadPoolExecutor(FETCHES_MAX, thread_name_prefix="download") as threads:
        copies = [
            threads.submit(_copy, remote, found, target if is_file else target / found.path)
            for found in files if is_file or _is_safe(uri, found.path)
        ]
        for copy in copies:
            copy.result()
    if not copies:
        raise ReadError(f"{uri} does not exist", code="InputMissing", target=uri)


def cached(uri: str, access: Access, cache: Path) -> Path:
    """Return a copy of the file or folder, made once for each content, under its own name; blocks.

    Safe for processes that ask at the same time. The key is over names, sizes and ETags; every file
    is checked against its own while it is fetched. Nothing is ever removed: the folder may be
    deleted when no job runs.

    Raises:
        As `download`.
    """
    _, files, _ = _find(uri, access, RetryPolicy())
    digest = hashlib.sha256()
    for found in files:
        digest.update(json.dumps([found.path, found.size_bytes, found.version]).encode())
    name = urlsplit(uri).path.rpartition("/")[2] or "content"
    place = cache / digest.hexdigest() / name
    if not place.exists():
        aside = cache / f".{uuid.uuid4().hex}"
        try:
            download(uri, access, aside / name)
            with contextlib.suppress(OSError):   # another process was first: its copy is as good
                os.rename(aside, place.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return place


def check_kind(uri: str, access: Access, kind: str) -> None:
    """Check that the URI names a `uri_file`, or a `uri_folder` with something in it; blocks.

    Raises:
        ReadError: There is nothing.
        InvalidInput: It is of the other kind.
        InferayError: Nothing there can be read.
    """
    remote, _, is_file = _find(uri, access, CHECK_POLICY)
    if not is_file and remote.is_empty():
        raise ReadError(f"the input {uri} does not exist", code="InputMissing", target=uri)
    if is_file != (kind == "uri_file"):
        is_, other = ("a file", "uri_file") if is_file else ("a folder", "uri_folder")
        raise InvalidInput(
            f"the input {uri} is {is_}, but its type is {kind}; give --input-type {other}"
        )


def _find(uri: str, access: Access, policy: RetryPolicy) -> tuple[Remote, Iterable[Found], bool]:
    """Return what reads, the files, and whether the URI is the one file."""
    if not is_bucket(uri):
        remote = open_remote(uri, access, policy)
        return remote, list(remote.list()), True
    scheme, _, path = uri.partition("://")
    parent, _, name = path.rpartition("/")
    if parent:
        beside = f"{scheme}://{parent}"   # reached as the URI is, even where it is the place itself
        own = Access((replace(access.place(uri), prefix=beside),), access.allow_private_addresses)
        remote = open_remote(beside, own, policy)
        try:
            return remote, [remote.stat(name)], True
        except ReadError as error:
            if error.code != "InputMissing":
                raise
    remote = open_remote(uri, access, policy)
    return remote, remote.list(), False


def _copy(remote: Remote, found: Found, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "xb") as file:
        remote.fetch(found, file)


def _is_safe(uri: str, path: str) -> bool:
    """Return True; a key that would lie elsewhere than below the folder is refused."""
    if "\0" in path or any(part in ("", os.curdir, os.pardir) for part in path.split("/")):
        raise InvalidInput(f"{uri}/{path}: no folder can hold a file of that name", target=uri)
    return True
