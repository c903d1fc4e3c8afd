"""How Azure's blobs are written, and the one form that is used inside.

That form is `abfs://CONTAINER@ACCOUNT.dfs.ENDPOINT/PATH`, whatever protocol reaches it. The path is
the blob's name as it is, without percent-encoding; only an https URL has that.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from inferay.errors import InvalidInput

#: Schemes of URIs that name a container and an account.
BLOB_SCHEMES = ("abfs", "abfss", "wasb", "wasbs")

#: The domain of Azure's public cloud, which a datastore's `endpoint` replaces.
PUBLIC_ENDPOINT = "core.windows.net"

#: Characters of a blob's name.
NAME_CHARS_MAX = 1024

#: Azure's rules.
CONTAINER = re.compile(r"\$(?:root|web|logs)|(?=.{3,63}$)[a-z0-9](?:-?[a-z0-9])+")
ACCOUNT = re.compile(r"[a-z0-9]{3,24}")

_HOST = re.compile(r"(?P<account>[^.]+)\.(?:dfs|blob)\.(?P<endpoint>.+)")


def container_uri(container: str, account: str, endpoint: str) -> str:
    """Return the address of a container, by a datastore's fields.

    Args:
        container: Its name.
        account: Of the storage account.
        endpoint: The domain after `blob.`, or the account's whole URL (`account_url`).

    Raises:
        InvalidInput: A name is none that Azure has.
    """
    if not ACCOUNT.fullmatch(account):
        raise InvalidInput(
            f"account_name: expected 3 to 24 lower-case letters and digits, got '{account}'",
            target="account_name",
        )
    if not CONTAINER.fullmatch(container):
        raise InvalidInput(
            "container_name: expected 3 to 63 lower-case letters, digits and single '-', got "
            f"'{container}'",
            target="container_name",
        )
    if "://" in endpoint:
        host = urlsplit(endpoint).netloc.lower()
        found = _HOST.fullmatch(host)
        endpoint = found["endpoint"] if found else host
    return f"abfs://{container}@{account}.dfs.{endpoint.strip('/').lower()}"


def account_url(account: str, endpoint: str, protocol: str) -> str:
    """Return the URL of a storage account's blobs, by a datastore's fields.

    An `endpoint` may be the account's whole URL, as an emulator has it.

    Raises:
        InvalidInput: It is no URL, or no domain.
    """
    if protocol not in ("https", "http"):
        raise InvalidInput(
            f"protocol: expected https or http, got '{protocol}'", target="protocol"
        )
    if "://" in endpoint:
        url = endpoint
    elif re.fullmatch(r"(localhost|[0-9.]+|\[.+\])(:[0-9]+)?", endpoint):   # an emulator's
        url = f"{protocol}://{endpoint}/{account}"
    else:
        url = f"{protocol}://{account}.blob.{endpoint}"
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("https", "http") and parts.hostname and parts.port is not False
    except ValueError:
        is_url = False
    if not is_url or re.search(r"[\s@?#]", url):
        raise InvalidInput(
            f"endpoint: expected a domain such as {PUBLIC_ENDPOINT}, or the https URL of the "
            "storage account without a query",
            target="endpoint",
        )
    return url.rstrip("/")


def account_of(uri: str) -> str:
    """Return the URL of the account that an address in the inner form names."""
    host = uri.removeprefix("abfs://").partition("/")[0].rpartition("@")[2]
    account, _, endpoint = host.partition(".dfs.")
    return account_url(account, endpoint, "https")


def blob_uri(value: str) -> str:
    """Return the inner form of `abfs[s]://` and `wasb[s]://` URIs.

    Raises:
        InvalidInput: It is none, or its path is no blob's.
    """
    scheme, _, rest = value.partition("://")
    authority, _, path = rest.partition("/")
    container, at, host = authority.rpartition("@")
    found = _HOST.fullmatch(host.lower())
    if not at or found is None or not CONTAINER.fullmatch(container):
        shown = authority.partition("?")[0] if not at or CONTAINER.fullmatch(container) else "…"
        raise InvalidInput(
            f"{scheme}://{shown[:200]}: expected abfss://CONTAINER@ACCOUNT.dfs.{PUBLIC_ENDPOINT}"
            "/PATH",
            target="uri",
        )
    if re.search(r"\?(.*&)?sig=", path):   # it would be taken for a part of the name, and shown
        raise InvalidInput(
            f"{scheme}://{authority}/…: a signature is not read from a URI; give it to a datastore "
            "of type azure_blob as its sas_token, and name azureml://datastores/NAME/paths/PATH",
            target="uri",
        )
    if "\0" in path or {"..", "."} & set(path.split("/")):
        raise InvalidInput(f"{value}: expected a name without '.' and '..' segments", target=value)
    if len(path) > NAME_CHARS_MAX:
        raise InvalidInput(
            f"{value[:100]}…: expected a name of at most {NAME_CHARS_MAX} characters",
            target="blob name",
        )
    return f"abfs://{container}@{found['account']}.dfs.{found['endpoint']}/{path}".rstrip("/")


def blob_uri_of_url(url: str) -> str | None:
    """Return the inner form of what an http(s) URL names, if it may be a blob.

    `https://ACCOUNT.blob.ENDPOINT/CONTAINER/PATH`, or an emulator's, with the account in the path.
    None if it has a query, which is a signature.
    """
    parts = urlsplit(url)
    host, path = parts.netloc.lower(), unquote(parts.path).strip("/")
    found = _HOST.fullmatch(host)
    if found is None:
        account, _, path = path.partition("/")
        host = f"{account}.blob.{host}"
    container, _, name = path.partition("/")
    if parts.query or parts.fragment or not CONTAINER.fullmatch(container):
        return None
    try:
        return blob_uri(f"abfs://{container}@{host}/{name}")
    except InvalidInput:   # an URL like any other
        return None
