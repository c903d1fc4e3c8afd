"""What a user's path or URI means: datastores, `azureml://` addresses, local paths, S3 and https.

Nothing is opened here. An `s3://` or `abfs://` URI is bucket and key as they are, without
percent-encoding; an `https://` URI is kept as it is written, unless a datastore is what it names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from inferay.engine.storage.azure_uris import BLOB_SCHEMES, blob_uri, blob_uri_of_url
from inferay.errors import InvalidInput, NotFound, nearest

#: Schemes of resolved URIs whose objects can be listed, and written.
BUCKET_SCHEMES = ("s3", "abfs")

#: Schemes of what is not on this machine, and can be read.
REMOTE_SCHEMES = (*BUCKET_SCHEMES, "https", "http")

#: Bytes of an S3 key.
KEY_BYTES_MAX = 1024

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


def is_uri(value: str) -> bool:
    """Return whether the value is a URI or an `azureml:` reference, not a local path."""
    return value.startswith("azureml:") or "://" in value


def is_remote(value: str) -> bool:
    """Return whether a resolved value is on another machine: no local path."""
    return value.startswith(tuple(f"{scheme}://" for scheme in REMOTE_SCHEMES))


def is_bucket(value: str) -> bool:
    """Return whether a resolved value is in a bucket, or a container: it is listed and written."""
    return value.startswith(tuple(f"{scheme}://" for scheme in BUCKET_SCHEMES))


def resolve(value: str, datastores: Mapping[str, str]) -> str:
    """Return what a path or URI stands for: a local path, `s3://…`, `abfs://…` or `https://…`.

    Args:
        value: An absolute local path, `file://…`, `s3://BUCKET/KEY`, one of Azure's
            (`azure_uris`), `https://…`, `http://…`, or `azureml://datastores/NAME/paths/PATH`.
        datastores: The datastores' roots by name: a folder, `s3://BUCKET/PREFIX`, or
            `abfs://CONTAINER@ACCOUNT.dfs.ENDPOINT`.

    Raises:
        NotFound: There is no such datastore.
        InvalidInput: The value is relative, malformed, or of a scheme that is not supported.
    """
    if value.startswith("azureml://"):
        return _in_datastore(value, datastores)
    scheme, colon, rest = value.partition("://")
    scheme = scheme.lower() if colon and _SCHEME.fullmatch(scheme) else ""
    if scheme == "s3":
        return _s3(f"s3://{rest}")
    if scheme in BLOB_SCHEMES:
        return blob_uri(f"{scheme}://{rest}")
    if scheme in ("https", "http"):
        return _in_container(_http(f"{scheme}://{rest}"), datastores)
    if scheme == "file":
        value = unquote(urlsplit(value).path)
    elif scheme:
        raise InvalidInput(
            f"{redacted(value)}: paths of the scheme '{scheme}' are not supported; give a local "
            "path, s3://BUCKET/KEY, abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH, https://… "
            "or azureml://datastores/NAME/paths/PATH",
            target=redacted(value),
        )
    if "\0" in value or not os.path.isabs(value):
        raise InvalidInput(f"'{value}' is not an absolute path", target=value)
    return os.path.normpath(value)


def datastore_uri(datastore: str, path: str) -> str:
    """Return the `azureml://` address of a path in a datastore."""
    return f"azureml://datastores/{datastore}/paths/{path.lstrip('/')}"


def redacted(uri: str) -> str:
    """Return the URI as messages may show it: without a user's name and password or a query.

    What follows `?` may be a signature, but not in a key of S3 or a path in a datastore.
    """
    scheme, colon, rest = uri.partition("://")
    kind = scheme.lower()
    if not colon or not _SCHEME.fullmatch(scheme) or kind in ("file", "azureml"):
        return uri
    query = ""
    is_blob = kind in BLOB_SCHEMES   # what stands before @ is the container
    if kind != "s3" and not is_blob:
        rest, query, _ = rest.partition("?")
    authority = "" if is_blob else rest.partition("/")[0]
    if ":" in authority and kind not in ("http", "https"):   # a secret may have slashes
        authority = rest
    user, at, _ = authority.rpartition("@")
    rest = rest[len(user):] if at else rest
    return f"{scheme}://{'…' if at else ''}{rest}{'?…' if query else ''}"


def _in_datastore(value: str, datastores: Mapping[str, str]) -> str:
    from inferay.engine.resources.references import parse_datastore_path  # brings pydantic

    address = parse_datastore_path(value)
    root = datastores.get(address.datastore)
    if root is None:
        raise NotFound(
            f"there is no datastore '{address.datastore}'"
            + nearest(address.datastore, datastores),
            target=value,
        )
    if is_bucket(root):
        joined = f"{root}/{address.path}"
        return _s3(joined) if root.startswith("s3://") else blob_uri(joined)
    return os.path.normpath(os.path.join(root, address.path))


def _in_container(url: str, datastores: Mapping[str, str]) -> str:
    """Return the address in the datastore whose container an URL names, else the URL.

    One with a query brings its own signature.
    """
    uri = blob_uri_of_url(url)
    is_inside = uri is not None and any(
        uri == root or uri.startswith(f"{root}/") for root in datastores.values()
    )
    return uri if uri is not None and is_inside else url


def _s3(value: str) -> str:
    bucket, _, key = value.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        shown = redacted(value)
        raise InvalidInput(f"{shown}: expected s3://BUCKET/KEY", target=shown)
    if "\0" in key or {"..", "."} & set(key.split("/")):
        raise InvalidInput(f"{value}: expected a key without '.' and '..' segments", target=value)
    if len(key.encode(errors="surrogatepass")) > KEY_BYTES_MAX:
        raise InvalidInput(
            f"{value[:100]}…: expected a key of at most {KEY_BYTES_MAX} bytes", target="s3 key"
        )
    return f"s3://{bucket}/{key}".rstrip("/")


def _http(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"{redacted(value)}: {error}", target="uri") from None
    if not host or re.search(r"[\s\0]", value):
        raise InvalidInput(f"{redacted(value)}: expected https://HOST/PATH", target="uri")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            f"{parts.scheme}://…@{host}: a URI with a user name or password is not accepted: it "
            "would be stored and logged",
            target="uri",
        )
    return value
