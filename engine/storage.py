"""What a user's path or URI means: datastores, `azureml://` addresses, local paths.

A datastore of type `local` is a folder. Other schemes are declared here and refused by name until
the engine can read them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from inferay.engine.resources.references import parse_datastore_path
from inferay.errors import InvalidInput, NotFound, nearest


def is_uri(value: str) -> bool:
    """Return whether the value is a URI or an `azureml:` reference, not a local path."""
    return value.startswith("azureml:") or "://" in value


def resolve_path(value: str, datastores: Mapping[str, Path]) -> Path:
    """Return the local path that a path or URI stands for.

    Args:
        value: An absolute local path, `file://…`, or `azureml://datastores/NAME/paths/PATH`.
        datastores: The folders of the datastores of type `local`, by name.

    Raises:
        NotFound: There is no such datastore.
        InvalidInput: The value is relative, or of a scheme that is not supported.
    """
    if value.startswith("azureml://"):
        address = parse_datastore_path(value)
        if address.datastore not in datastores:
            raise NotFound(
                f"there is no datastore '{address.datastore}'"
                + nearest(address.datastore, datastores),
                target=value,
            )
        return Path(os.path.normpath(datastores[address.datastore] / address.path))
    parts = urlsplit(value)
    if parts.scheme == "file":
        value = unquote(parts.path)
    elif "://" in value:
        raise InvalidInput(
            f"{value}: paths of the scheme '{parts.scheme}' are not supported; give a local path "
            "or azureml://datastores/NAME/paths/PATH",
            target=value,
        )
    if "\0" in value or not os.path.isabs(value):
        raise InvalidInput(f"'{value}' is not an absolute path", target=value)
    return Path(os.path.normpath(value))


def datastore_uri(datastore: str, path: str) -> str:
    """Return the `azureml://` address of a path in a datastore."""
    return f"azureml://datastores/{datastore}/paths/{path.lstrip('/')}"
