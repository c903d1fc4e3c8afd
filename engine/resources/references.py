"""Names as users write them: of assets and computes, and of paths in datastores.

What is parsed here is only the writing; whether the thing exists, and which version `latest`
is, the control plane knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from inferay.engine.resources.wording import shown
from inferay.errors import InvalidInput

#: The name of an asset, a deployment, a job, a compute or a datastore; also a version.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
NAME_RULE = "1 to 255 letters, digits, '.', '_' and '-', starting with a letter or a digit"
#: Azure's rule for the name of an endpoint: it becomes part of a host name.
ENDPOINT_NAME = re.compile(r"(?=.{3,32}$)[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?")
ENDPOINT_NAME_RULE = (
    "3 to 32 letters, digits and '-', starting with a letter and not ending with '-'"
)
#: It stands in headers and in the names of Serve's applications; Azure's own names fit in.
ONLINE_DEPLOYMENT_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")
ONLINE_DEPLOYMENT_NAME_RULE = (
    "1 to 64 letters, digits, '_' and '-', starting and ending with a letter or a digit"
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
#: Ids that begin like a path: Azure's, and those in this product's own answers.
_ID = re.compile(
    r"/subscriptions/.*|"
    r"/workspaces/[^/]+/(?:data|models|codes|environments)/[^/]+/versions/[^/]+/?",
    re.IGNORECASE | re.DOTALL,
)
_DATASTORE_URI = re.compile(
    r"azureml://(?:subscriptions/[^/]+/resourcegroups/[^/]+/(?:providers/[^/]+/)?"
    r"workspaces/[^/]+/)?datastores/(?P<datastore>[^/]+)(?:/paths(?:/(?P<path>.*))?)?",
    re.IGNORECASE | re.DOTALL,
)
#: Characters of a reference; an ARM id has about 300.
REFERENCE_CHARS_MAX = 2048


@dataclass(frozen=True)
class Reference:
    """A thing by name: `azureml:sk:3` is name `sk`, version `3`.

    Attributes:
        name: The name alone.
        version: The version, if one is given.
        label: `latest`, if given in place of a version.
        registry: The registry that holds it; None for the workspace.
        raw: The reference as written.
    """

    name: str
    version: str | None = None
    label: str | None = None
    registry: str | None = None
    raw: str = ""


@dataclass(frozen=True)
class DatastorePath:
    """A path in a datastore: `azureml://datastores/D/paths/P`.

    Attributes:
        datastore: The datastore's name.
        path: The path below its root, without a leading slash; "" is the root.
    """

    datastore: str
    path: str

    def __str__(self) -> str:
        return f"azureml://datastores/{self.datastore}/paths/{self.path}"


def is_local_path(text: str) -> bool:
    """Return whether the text is a path on this machine: no scheme, no id; or `file://`."""
    if is_resource_id(text):
        return False
    return text.lower().startswith("file:") or not _SCHEME.match(text)


def is_resource_id(text: str) -> bool:
    """Return whether the text is an id such as `/subscriptions/…`, although it begins as a path."""
    return _ID.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """Return what a reference names.

    Accepted: `azureml:NAME`, `azureml:NAME:VERSION`, `azureml:NAME@LABEL`, each also without
    `azureml:`; ids (`/subscriptions/…`, `/workspaces/…`, also after `azureml:`); `azureml://registries/…`
    and `azureml://locations/…/workspaces/…`.

    Raises:
        InvalidInput: It is none of these, or a part is not a legal name.
    """
    if len(text) > REFERENCE_CHARS_MAX:
        raise _bad_reference(text)
    rest = text.removeprefix("azureml:")
    if rest.startswith("/"):
        return _parse_id(text, rest)
    name, at, label = rest.partition("@")
    name, colon, version = name.partition(":")
    reference = Reference(name, version or None, label or None, None, text)
    if (at and not label) or (colon and not version) or (at and colon):
        raise _bad_reference(text)
    return _checked(reference)


def _parse_id(text: str, rest: str) -> Reference:
    steps = rest.strip("/").split("/")
    root = steps[0].lower()
    if root not in ("subscriptions", "registries", "locations", "workspaces") or len(steps) < 4:
        raise _bad_reference(text)
    registry = steps[1] if root == "registries" else None
    kind = steps[-2].lower()
    if kind in ("versions", "labels"):
        version, label = (steps[-1], None) if kind == "versions" else (None, steps[-1])
        return _checked(Reference(steps[-3], version, label, registry, text))
    return _checked(Reference(steps[-1], None, None, registry, text))


def _checked(reference: Reference) -> Reference:
    parts = (reference.name, reference.version, reference.label, reference.registry)
    if not all(part is None or NAME.fullmatch(part) for part in parts):
        raise _bad_reference(reference.raw)
    return reference


def _bad_reference(text: str) -> InvalidInput:
    return InvalidInput(
        f"expected azureml:NAME:VERSION, azureml:NAME@latest, azureml:NAME or a resource id, "
        f"got {shown(text)}"
    )


def is_datastore_path(text: str) -> bool:
    """Return whether the text means a path in a datastore, well-formed or not."""
    return _DATASTORE_URI.match(text) is not None


def parse_datastore_path(text: str) -> DatastorePath:
    """Return the datastore and path of `azureml://datastores/…`, short or with the workspace.

    Raises:
        InvalidInput: It is no such URI, or its path has a `..` segment or a NUL.
    """
    match = _DATASTORE_URI.fullmatch(text)
    if match is None or not NAME.fullmatch(match["datastore"]):
        raise InvalidInput(f"expected azureml://datastores/NAME/paths/PATH, got {shown(text)}")
    path = (match["path"] or "").lstrip("/")
    if "\0" in path or ".." in re.split(r"[/\\]", path):
        raise InvalidInput(f"expected a path without '..' or NUL, got {shown(text)}")
    return DatastorePath(match["datastore"], path)
