"""Resources over REST: named ones, versioned assets, uploads, long operations."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from inferay.client.http import Http, segment
from inferay.engine.resources import (
    Asset,
    Entity,
    Environment,
    Model,
    from_rest,
    is_local_path,
    resolve_local_paths,
    to_rest,
)
from inferay.errors import (
    Conflict,
    InferayError,
    InvalidInput,
    Unavailable,
    UserCodeError,
)

E = TypeVar("E", bound=Entity)
A = TypeVar("A", bound=Asset)

#: How often, and for how long, a long operation is asked for.
POLL_S = 0.2
OPERATION_S = 3600.0


class Named(Generic[E]):
    """Resources that have a name and no version."""

    def __init__(self, http: Http, path: str, cls: type[E]) -> None:
        self._http = http
        self._path = path
        self._cls = cls

    def create_or_update(self, entity: E) -> E:
        """Create or replace a resource; return it as the server has it now.

        Raises:
            InvalidInput: The server refuses it.
        """
        name = str(entity.__dict__["name"])
        body = to_rest(entity, show_secrets=True)
        return self._entity(self._http.put(f"/v1/{self._path}/{segment(name)}", body))

    def get(self, name: str) -> E:
        """Return a resource.

        Raises:
            NotFound: There is none.
        """
        return self._entity(self._http.get(f"/v1/{self._path}/{segment(name)}"))

    def list(self) -> list[E]:
        """Return all, by name."""
        return [self._entity(view) for view in self._http.get(f"/v1/{self._path}")["value"]]

    def delete(self, name: str) -> None:
        """Delete a resource.

        Raises:
            NotFound: There is none.
        """
        self._http.delete(f"/v1/{self._path}/{segment(name)}")

    def _entity(self, view: dict[str, Any]) -> E:
        return from_rest(self._cls, view["name"], wire(view))


class Assets(Generic[A]):
    """Versioned assets of one kind."""

    def __init__(self, http: Http, kind: str, cls: type[A]) -> None:
        self._http = http
        self._kind = kind
        self._cls = cls

    def create_or_update(self, asset: A, *, wait: bool = True) -> A:
        """Register an asset; its next version where none is given.

        Blocks until the content is copied, unless told not to `wait`.

        Raises:
            Conflict: The version exists with other content.
        """
        name = asset.name
        if name is None:
            raise InvalidInput("name: missing; it is required", target="name")
        asset = resolve_local_paths(asset)
        path = asset.__dict__.get("path")
        if path is not None and is_local_path(path):
            asset = asset.model_copy(update={"path": upload(self._http, path)})
        body = to_rest(asset)
        address = f"/v1/{self._kind}/{segment(name)}/versions"
        if asset.version is None:
            view, operation = self._http.post_waited(address, body)
        else:
            version = segment(asset.version)
            view, operation = self._http.put_waited(f"{address}/{version}", body)
        if operation is not None and wait:
            wait_for(self._http, operation)
            view = self._http.get(f"{address}/{segment(view['name'])}")
        check_not_failed(view)
        return self._entity(name, view)

    def get(self, name: str, version: str | None = None, label: str | None = None) -> A:
        """Return a version; the one with a label; the one registered last where neither is given.

        Raises:
            NotFound: There is none.
        """
        address = f"/v1/{self._kind}/{segment(name)}"
        if label is not None and version is None:
            return self._entity(name, self._http.get(f"{address}/labels/{segment(label)}"))
        wanted = segment(version or "latest")
        return self._entity(name, self._http.get(f"{address}/versions/{wanted}"))

    def list(self, name: str | None = None, *, view: str = "ActiveOnly") -> list[A]:
        """Return the latest version of every name, or all versions of one.

        Args:
            name: Of the one.
            view: `ActiveOnly`, `ArchivedOnly` or `All`.
        """
        address = f"/v1/{self._kind}"
        if name is not None:
            address += f"/{segment(name)}/versions"
        views = self._http.get(address, listViewType=view)["value"]
        return [self._entity(view["id"].split("/")[-3], view) for view in views]

    def archive(self, name: str, version: str | None = None) -> None:
        """Take a version, or all of a name, out of lists; it is never the latest then.

        Raises:
            NotFound: There is none.
        """
        self._http.post(f"{self._address(name, version)}/archive")

    def restore(self, name: str, version: str | None = None) -> None:
        """Undo `archive`.

        Raises:
            NotFound: There is none.
        """
        self._http.post(f"{self._address(name, version)}/restore")

    def delete(self, name: str, version: str) -> None:
        """Delete a version's entry.

        Raises:
            NotFound: There is none.
        """
        self._http.delete(self._address(name, version))

    def _address(self, name: str, version: str | None) -> str:
        address = f"/v1/{self._kind}/{segment(name)}"
        return address if version is None else f"{address}/versions/{segment(version)}"

    def _entity(self, name: str, view: dict[str, Any]) -> A:
        return from_rest(self._cls, name, wire(view), version=view["name"])


class Environments(Assets[Environment]):
    """Environments, which are built where they are used, or ahead of that."""

    def build(self, name: str, version: str | None = None, *, wait: bool = True) -> None:
        """Build an environment on the control plane's machine, by default the latest version.

        Blocks until it is built, unless told not to `wait`; idempotent.

        Raises:
            NotFound: There is none.
            InvalidInput: It cannot be had there.
            UserCodeError: It cannot be built; the details are the resolver's last lines.
        """
        address = f"/v1/environments/{segment(name)}/versions/{segment(version or 'latest')}/build"
        _, operation = self._http.post_waited(address, {})
        if operation is not None and wait:
            wait_for(self._http, operation)


class Models(Assets[Model]):
    """Models, whose content can be had again."""

    def download(
        self, name: str, version: str, download_path: str | Path = "."
    ) -> list[Path]:
        """Copy a model's file or folder below `download_path/NAME`; return the files, all new.

        Raises:
            NotFound: There is no such version.
            Conflict: A file is there already.
        """
        address = f"/v1/models/{segment(name)}/versions/{segment(version)}/files"
        names = [one["name"] for one in self._http.get(address)["value"]]
        targets = [Path(download_path, name, one) for one in names]
        for target in targets:
            if target.exists():
                raise Conflict(f"{target} exists already; choose another download path")
        for one, target in zip(names, targets, strict=True):
            self._http.download(f"{address}/{quote(one)}", target)
        return targets


def upload(http: Http, path: str) -> str:
    """Return what a control plane calls a local path.

    That is the path itself where it runs on this machine, else the address of an upload; blocks
    until uploaded.

    Raises:
        InvalidInput: The path does not exist, or there is no file to upload.
    """
    source = Path(path.removeprefix("file://").removeprefix("file:")).absolute()
    if not source.exists():
        raise InvalidInput(f"{source} does not exist", target=path)
    if http.address.is_local:
        return str(source)
    if next(_files(source), None) is None:
        raise InvalidInput(f"{source} has no files", code="NoInput", target=path)
    begun = http.post("/v1/uploads")
    for file in _files(source):
        relative = quote(str(file.relative_to(source.parent)))
        http.upload(f"/v1/uploads/{begun['name']}/{relative}", _chunks(file))
    return f"{begun['uri']}/{source.name}"


def _files(source: Path) -> Iterator[Path]:
    """Yield the file itself, or all files below the folder."""
    if source.is_file():
        yield source
    for parent, _, files in os.walk(source):
        yield from (Path(parent) / file for file in files)


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def wait_for(http: Http, operation: str) -> None:
    """Block until an operation has ended.

    Raises:
        InferayError: It failed, with its reason.
        Unavailable: It goes on for longer than an hour.
    """
    until_s = time.monotonic() + OPERATION_S
    while time.monotonic() < until_s:
        view = http.get(f"/v1/operations/{operation}")
        if view["status"] == "Succeeded":
            return
        if view["status"] != "InProgress":
            raise _failure(view["error"])
        time.sleep(POLL_S)
    raise Unavailable(f"operation {operation} has not ended within {OPERATION_S:g} s")


def check_not_failed(view: dict[str, Any]) -> None:
    """Check that a resource was made.

    Raises:
        InferayError: Its operation failed, with its reason.
    """
    if view["properties"].get("provisioningState") == "Failed":
        raise _failure(view["properties"].get("error") or {})


def _failure(error: Mapping[str, Any]) -> InferayError:
    details = "\n".join(one["message"] for one in error.get("details") or []) or None
    cls = UserCodeError if details else InferayError   # details are the user's own traceback
    return cls(error.get("message", "the operation failed"), code=error.get("code"),
               details=details)


def wire(view: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without the fields that are ours alone."""
    properties = {k: v for k, v in view["properties"].items() if k not in ("contentHash", "error")}
    return {k: v for k, v in view.items() if k != "notices"} | {"properties": properties}


