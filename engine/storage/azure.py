"""Azure's blobs: the client of a container, and reading what lies in it.

adlfs gives the file system and Azure's own client below it; credentials come from the place alone
where it has any, never from the environment. One file system is kept for each place and process:
adlfs holds its connections until the process ends.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from inferay.engine.storage.access import Access, Place
from inferay.engine.storage.azure_uris import account_of
from inferay.engine.storage.filesystems import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, open_filesystem
from inferay.engine.storage.remote import Found, Reader, bare, check, check_length, resume_at
from inferay.engine.storage.retries import RetryPolicy
from inferay.engine.storage.sorting import in_order
from inferay.errors import InvalidInput

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

#: What one request reads: eight of them at once are 64 MiB in memory.
READ_BYTES_MAX = 8 << 20

Page = list[Found]

#: What marks a directory of an account with a hierarchical namespace.
_FOLDER = "hdi_isfolder"


def check_package() -> None:
    """Check that what speaks to Azure is installed.

    Raises:
        InvalidInput: It is not.
    """
    try:
        import adlfs  # noqa: F401
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"Azure's blobs need the package {error.name}, which is not installed here: pip "
            "install 'inferay[azure]'",
            code="PackageMissing",
        ) from None


def open_container(uri: str, place: Place) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URI's account, and `container/path`; nothing is sent.

    Raises:
        InvalidInput: adlfs is not installed.
    """
    check_package()
    container, _, rest = uri.removeprefix("abfs://").partition("@")
    path = rest.partition("/")[2]
    return _opened(place.endpoint_url or account_of(uri), place, os.getpid()), f"{container}/{path}"


@functools.cache   # as many as there are datastores, and sets of credentials
def _opened(url: str, place: Place, pid: int) -> AbstractFileSystem:
    from adlfs import AzureBlobFileSystem

    class Blobs(AzureBlobFileSystem):   # type: ignore[misc]  # untyped
        """adlfs over a client that retries nothing itself, and names as they are."""

        def do_connect(self) -> None:
            self.service_client = _client(url, self.credential)

        async def _cat_file(
            self, path: str, start: int | None = None, end: int | None = None, **options: Any
        ) -> bytes:
            container, _, name = path.partition("/")
            length = None if end is None else end - (start or 0)
            found = await self.service_client.get_blob_client(container, name).download_blob(
                offset=start or (None if length is None else 0), length=length, decompress=False
            )
            data: bytes = await found.readall()
            return data

    return Blobs(
        account_name="of-the-url", credential=_credential(place), anon=True,
        use_listings_cache=False, skip_instance_cache=True,
    )


def _client(url: str, credential: Any) -> Any:
    from azure.storage.blob.aio import BlobServiceClient

    return BlobServiceClient(
        url, credential, retry_total=0, connection_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S, max_single_get_size=READ_BYTES_MAX,
        max_chunk_get_size=READ_BYTES_MAX,
    )


def _credential(place: Place) -> Any:
    """Return the place's credentials, or Azure's standard chain's; None for public containers."""
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
    from azure.identity.aio import ClientSecretCredential, DefaultAzureCredential

    account = account_name(place.prefix)
    key, sas = place.account_key, place.sas_token
    if place.client_secret:
        return ClientSecretCredential(place.tenant_id, place.client_id, place.client_secret)
    if not key and not sas:   # as adlfs reads them
        key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY", "")
        sas = os.environ.get("AZURE_STORAGE_SAS_TOKEN", "")
    if key:
        return AzureNamedKeyCredential(account, key)
    if sas:
        return AzureSasCredential(sas.lstrip("?"))
    is_anonymous = os.environ.get("AZURE_STORAGE_ANON", "false").lower() not in ("false", "0", "f")
    return None if is_anonymous else DefaultAzureCredential()


def account_name(uri: str) -> str:
    """Return the name of the account of an address in the inner form."""
    return uri.partition("@")[2].partition(".dfs.")[0]


class BlobFiles:
    """Blobs below `abfs://CONTAINER@ACCOUNT.dfs.ENDPOINT/PREFIX`."""

    def __init__(
        self, root: str, access: Access,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008
    ) -> None:
        self._root = root
        self._fs: Any
        self._fs, path = open_filesystem(root, access)
        self._reader = Reader(self._fs, policy, is_refreshed=False)
        container, _, prefix = path.partition("/")
        self._container = self._fs.service_client.get_container_client(container)
        self._prefix = f"{prefix}/" if prefix else ""

    def list(self) -> Iterator[Found]:
        """Yield every blob below the root, in bytewise order of the path.

        Azure's own order is another one where the namespace is hierarchical, so it is sorted.
        """
        entries = (
            (found.path.encode(), found.size_bytes, found.version)
            for page in self._pages() for found in page
        )
        for name, size_bytes, version in in_order(entries):
            yield Found(name.decode(), size_bytes, version)

    def is_empty(self) -> bool:
        """Return whether there is no blob below the root."""
        return not any(self._pages())

    def stat(self, path: str) -> Found:
        """Return a blob as it is now."""
        return self._reader.run(f"{self._root}/{path}", lambda: self._stat(path))

    def fetch(self, expected: Found, file: IO[bytes]) -> None:
        """Write the whole blob; the first bytes that the file already holds count as fetched."""
        uri = f"{self._root}/{expected.path}"
        self._reader.run_on(uri, lambda: self._fetch(uri, expected, file), file)

    def _pages(self) -> Iterator[Page]:
        token: str | None = None
        while True:
            page, token = self._reader.run(self._root, functools.partial(self._page, token))
            yield page
            if not token:
                return

    async def _page(self, token: str | None) -> tuple[Page, str | None]:
        pages = self._container.list_blobs(
            name_starts_with=self._prefix or None, include=["metadata"]
        ).by_page(token)
        found = [
            Found(blob.name[len(self._prefix):], blob.size, bare(blob.etag))
            async for blob in await anext(pages)
            if not blob.name.endswith("/") and not _is_folder(blob)
        ]
        return found, pages.continuation_token

    async def _stat(self, path: str) -> Found:
        found = await self._container.get_blob_client(self._prefix + path).get_blob_properties()
        if _is_folder(found):
            raise FileNotFoundError(f"{self._root}/{path} is a folder")
        return Found(path, found.size, bare(found.etag))

    async def _fetch(self, uri: str, expected: Found, file: IO[bytes]) -> None:
        start = resume_at(file, expected)
        blob = self._container.get_blob_client(self._prefix + expected.path)
        found = await blob.download_blob(offset=start or None, decompress=False)
        check(uri, expected, bare(found.properties.etag), start + found.size)
        async for chunk in found.chunks():
            file.write(chunk)
        check_length(expected, file)


def _is_folder(blob: Any) -> bool:
    return (blob.metadata or {}).get(_FOLDER) == "true"
