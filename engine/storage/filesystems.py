"""Opening a place: an fsspec file system for a local path, S3, Azure or http(s).

Each call makes a file system of its own, with a client and connections (a tenth of a second on
S3): keep it. Only Azure's are kept for all, as adlfs ends none before the process. Listings are
never cached. One attempt per call: what failed
is tried again by `retries`, and by nothing below it. The methods without underscore block, and may
be called from any thread; each process has an event loop of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferay.engine.storage.access import Access, Place
from inferay.engine.storage.addresses import guarded_client
from inferay.engine.storage.uris import is_remote

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

#: A connection that is not made within this time is an attempt that failed.
CONNECT_TIMEOUT_S = 10.0

#: Nor is an answer read on after silence of this length: storage that throttles takes seconds.
READ_TIMEOUT_S = 30.0

#: Connections of one file system: eight files at once, listing, and writing.
CONNECTIONS_MAX = 16

#: Redirects that are followed, each with its address checked.
REDIRECTS_MAX = 3


def open_filesystem(uri: str, access: Access) -> tuple[AbstractFileSystem, str]:
    """Return the file system that a resolved path or URI lies in, and its path there.

    Nothing is sent before the first use.

    Args:
        uri: As `resolve` returns it.
        access: Endpoints and credentials.
    """
    if not is_remote(uri):
        from fsspec.implementations.local import LocalFileSystem

        return LocalFileSystem(skip_instance_cache=True), uri
    if uri.startswith("s3://"):
        return _s3(access.place(uri)), uri.removeprefix("s3://")
    if uri.startswith("abfs://"):
        from inferay.engine.storage.azure import open_container

        return open_container(uri, access.place(uri))
    return _http(access), uri


def _s3(place: Place) -> AbstractFileSystem:
    from s3fs import S3FileSystem  # half a second, and only for those who use it

    filesystem = S3FileSystem(
        anon=not place.access_key_id and not _has_chain(),   # what is public is read all the same
        endpoint_url=place.endpoint_url or None,
        key=place.access_key_id or None,
        secret=place.secret_access_key or None,
        token=place.session_token or None,
        client_kwargs={"region_name": place.region} if place.region else {},
        config_kwargs={
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S,
            "max_pool_connections": CONNECTIONS_MAX,
            # Services that are not AWS's refuse the checksums that newer clients add by default.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
        use_listings_cache=False, skip_instance_cache=True,
    )
    filesystem.retries = 1
    return filesystem


def _has_chain() -> bool:
    """Return whether AWS's standard chain has credentials here; may ask the machine's service."""
    from botocore.exceptions import BotoCoreError
    from botocore.session import Session

    try:
        return Session().get_credentials() is not None
    except BotoCoreError:   # there is something, and it is wrong: the first request says what
        return True


def _http(access: Access) -> AbstractFileSystem:
    import aiohttp
    from fsspec.implementations.http import HTTPFileSystem

    async def get_client(**options: Any) -> aiohttp.ClientSession:
        return guarded_client(
            allow_private=access.allow_private_addresses, connections_max=CONNECTIONS_MAX,
            connect_timeout_s=CONNECT_TIMEOUT_S, read_timeout_s=READ_TIMEOUT_S,
        )

    return HTTPFileSystem(
        get_client=get_client, encoded=True, skip_instance_cache=True,
        use_listings_cache=False, max_redirects=REDIRECTS_MAX,
    )
