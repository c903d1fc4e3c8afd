"""Models, data, environments and code: versions, references, and snapshots by content.

Code and models are copied when they are registered, as Azure uploads them: what was deployed does
not change when its author goes on working. Snapshots lie under their hash, so that equal content
is kept once. Data assets are pointers.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from inferay.control import data, storage
from inferay.control.context import Context
from inferay.control.mlflow_store import is_of_mlflow, name_in
from inferay.control.operations import Steps, begin
from inferay.control.tables import Asset, Operation, now
from inferay.control.tokens import Principal
from inferay.engine.batch.spec import hash_path
from inferay.engine.resources import (
    Asset as AssetEntity,
)
from inferay.engine.resources import (
    Code,
    Data,
    Environment,
    Model,
    Reference,
    from_rest,
    parse_reference,
    to_rest,
)
from inferay.engine.scoring.flavors import MLMODEL, check_model, flavor_of, flavors_of
from inferay.engine.storage import is_remote
from inferay.engine.storage.download import download
from inferay.errors import Conflict, InferayError, InvalidInput, NotFound, nearest

#: The entity of each kind, and the property that says where its content is.
KINDS: Mapping[str, tuple[type[AssetEntity], str | None]] = {
    "models": (Model, "modelUri"),
    "data": (Data, "dataUri"),
    "environments": (Environment, None),
    "codes": (Code, "codeUri"),
}

#: Kinds whose content is copied.
SNAPSHOTS = ("models", "codes")

#: Properties of a model that its view adds.
TOLD = ("inferay.mlflow_version", "inferay.mlflow_notice", "inferay.labels")

#: What a copied folder leaves out.
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".git", ".ipynb_checkpoints")


def put_asset(
    context: Context, session: Session, who: Principal, kind: str, name: str,
    version: str | None, body: Mapping[str, Any],
) -> tuple[Asset, bool]:
    """Register a version, in the caller's transaction; the next number where none is given.

    Returns:
        The row, and whether it is new: an equal version that exists is returned as it is.

    Raises:
        InvalidInput: The body or the path is wrong.
        Conflict: The version exists with other content.
    """
    cls, uri_field = KINDS[kind]
    entity = from_rest(cls, name, body, version=version)
    properties: dict[str, Any] = to_rest(entity)["properties"]   # type: ignore[assignment]
    properties["properties"] = {   # what a view tells of the registry is not to be registered
        name: value for name, value in properties["properties"].items()
        if name not in TOLD
    }
    path = None
    if uri_field is not None and kind == "models" and is_of_mlflow(properties[uri_field]):
        path = properties[uri_field]
        name_in(path)
    elif uri_field is not None:
        path = storage.resolve_uri(context, session, who, properties[uri_field])
        if not is_remote(path):
            _check_local(path, uri_field)
            if kind == "data":
                data.check_type(path, str(properties["dataType"]))
    version = version or next_version(session, kind, name)
    row = find_version(session, kind, name, version)
    if row is not None and row.state != "Failed" and not _is_only_in_mlflow(row, path):
        if _same(row, properties, path):
            return row, False
        raise Conflict(
            f"{_word(kind)} {name} version {version} exists already with other content; leave out "
            "the version for a new one",
            target=f"{kind}/{name}/versions/{version}",
        )
    is_taken_over = row is not None and _is_only_in_mlflow(row, path)
    row = row or Asset(kind=kind, name=name, version=version)
    row.properties = properties
    row.path = path
    row.state = "Creating"
    row.error = None
    session.add(row)
    session.flush()
    begin(
        session, "asset.put", f"{kind}/{name}/versions/{version}",
        {"asset": row.id, "is_taken_over": is_taken_over},
    )
    return row, True


def _is_only_in_mlflow(row: Asset, path: str | None) -> bool:
    """Return whether this is the registration that copies a model of MLflow's server."""
    uri = row.properties.get("modelUri")
    return row.mlflow_version is not None and row.path is None and path == uri


def _check_local(path: str, field: str) -> None:
    if not os.path.exists(path):
        raise InvalidInput(f"{field}: {path} does not exist", target=field)
    if not (os.path.isfile(path) or os.path.isdir(path)):
        raise InvalidInput(f"{field}: {path} is no file or folder", target=field)


def find_version(session: Session, kind: str, name: str, version: str) -> Asset | None:
    """Return a version of an asset, if it exists."""
    return session.scalar(
        select(Asset).where(Asset.kind == kind, Asset.name == name, Asset.version == version)
    )


def find(session: Session, kind: str, reference: str) -> Asset:
    """Return what a reference (`azureml:n:v`, `azureml:n@latest`, an id) names.

    Raises:
        NotFound: There is no such asset, or it is of a registry.
        Conflict: It is not ready, or its registration failed.
    """
    wanted = parse_reference(reference)
    _check_is_here(kind, wanted)
    if wanted.version is not None:
        row = find_version(session, kind, wanted.name, wanted.version)
    elif wanted.label not in (None, "latest"):
        row = labelled(session, kind, wanted.name, str(wanted.label))
    else:
        row = latest(session, kind, wanted.name)
    if row is None:
        names = session.scalars(select(Asset.name).where(Asset.kind == kind).distinct())
        what = f"{wanted.name} version {wanted.version}" if wanted.version else wanted.name
        raise NotFound(
            f"there is no {_word(kind)} {what}{nearest(wanted.name, names)}", target=reference
        )
    if row.state != "Succeeded":
        why = f": {row.error['message']}" if row.error else ""
        raise Conflict(
            f"the {_word(kind)} {row.name} version {row.version} is {row.state}{why}",
            target=reference,
        )
    if row.mlflow_version is not None and row.path is None:
        uri = row.properties["modelUri"]
        raise Conflict(
            f"the model {row.name} version {row.version} is in MLflow's registry, and its content "
            f"is not here yet; copy it: inferay model create -n {row.name} -v {row.version} "
            f"-p {uri}", code="NotCopied", target=reference,
        )
    return row


def _check_is_here(kind: str, wanted: Reference) -> None:
    """Check that a reference means an asset of this workspace.

    Raises:
        NotFound: It does not: an asset that happens to have the same name is another one.
    """
    if wanted.registry is not None:
        raise NotFound(
            f"the {_word(kind)} {wanted.name} is of the registry '{wanted.registry}', and there "
            f"are no registries here; register it in this workspace and name it "
            f"azureml:{wanted.name}:VERSION", target=wanted.raw,
        )


def labelled(session: Session, kind: str, name: str, label: str) -> Asset:
    """Return the version with a label, which is an alias in MLflow's registry.

    Raises:
        NotFound: None has it.
    """
    rows = session.scalars(select(Asset).where(Asset.kind == kind, Asset.name == name))
    known = {one: row for row in rows for one in row.labels}
    if label in known:
        return known[label]
    if label == "latest" and (row := latest(session, kind, name)) is not None:
        return row
    if not known and latest(session, kind, name) is None:
        raise NotFound(f"there is no {_word(kind)} {name}", target=f"{kind}/{name}")
    has = ", ".join(f"'{one}'" for one in sorted({*known, "latest"}))
    raise NotFound(
        f"there is no label '{label}' of {_word(kind)} {name}; there is {has}, else give its "
        f"version: azureml:{name}:VERSION", target=f"{kind}/{name}",
    )


def latest(session: Session, kind: str, name: str) -> Asset | None:
    """Return the version that was registered last and is not archived, if there is one."""
    query = select(Asset).where(
        Asset.kind == kind, Asset.name == name, Asset.is_archived.is_(False)
    )
    return session.scalar(query.order_by(Asset.id.desc()).limit(1))


def next_version(session: Session, kind: str, name: str) -> str:
    """Return the next free number."""
    versions = session.scalars(select(Asset.version).where(Asset.kind == kind, Asset.name == name))
    return str(max((int(v) for v in versions if v.isdigit()), default=0) + 1)


def count(session: Session, kind: str) -> int:
    """Return how many versions there are of a kind."""
    found = session.scalar(select(func.count()).select_from(Asset).where(Asset.kind == kind))
    return found or 0


def add_steps(steps: Steps) -> None:
    """Say how an asset is registered."""
    steps.add("asset.put", [_snapshot, _activate], _on_failure)


def _snapshot(context: Context, operation: Operation) -> None:
    """Copy the content under its hash; a copy that is there is used as it is."""
    with context.database.read() as session:
        row = session.get_one(Asset, operation.payload["asset"])
    if row.kind not in SNAPSHOTS or row.path is None or row.content_hash is not None:
        return
    source = _source(row.path)
    aside = context.workspace.assets / f".{operation.id}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    copy = aside / (source.name or "content")
    try:
        if is_of_mlflow(row.path):
            context.mlflow.download(row.path, copy)
        elif is_remote(row.path):
            with context.database.read() as session:
                access = storage.access_to(context, session, [row.path])
            download(row.path, access, copy)
        elif source.is_dir():
            shutil.copytree(source, copy, ignore=LEFT_OUT)
        else:
            shutil.copy2(source, copy)
    except Exception as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, shutil.Error):   # of a folder: which files, and why
            raise InvalidInput(
                f"{source} cannot be copied: {error.args[0][0][2]}", target=str(source)
            ) from error
        raise
    try:
        described = _described(operation, row, copy)
    except InferayError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    digest = hash_path(copy)
    folder = context.workspace.assets / row.kind / digest
    folder.parent.mkdir(exist_ok=True)
    context.checkpoint("asset.put:copied")
    if (folder / copy.name).exists():
        shutil.rmtree(aside)
    elif folder.exists():   # equal content under another name: its copy goes beside it
        folder = folder.with_name(f"{digest}-{uuid.uuid5(uuid.NAMESPACE_URL, copy.name).hex[:8]}")
        _move(aside, folder)
    else:
        _move(aside, folder)
    with context.database.write() as session:
        row = session.get_one(Asset, operation.payload["asset"])
        row.properties = described
        row.content_hash = digest
        row.path = str(folder / copy.name)


def _source(path: str) -> Path:
    """Return a path whose name the copy of the content gets."""
    if is_of_mlflow(path):
        return Path(name_in(path))
    return Path(urlsplit(path).path if is_remote(path) else path)


def _described(operation: Operation, row: Asset, content: Path) -> dict[str, Any]:
    """Return a version's properties, with what its content says of the model.

    Raises:
        InvalidInput: The content is no model of the type.
    """
    if row.kind != "models":
        return row.properties
    kind, flavors = row.properties["modelType"], row.properties.get("flavors")
    if operation.payload.get("is_taken_over") and (content / MLMODEL).is_file():
        kind = "mlflow_model"
    check_model(flavor_of(kind, has_code=False), content)
    if kind == "mlflow_model":
        flavors = flavors or flavors_of(content)
    return row.properties | {"modelType": kind, "flavors": flavors}


def _move(aside: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(aside)
    else:
        os.replace(aside, folder)


def _activate(context: Context, operation: Operation) -> None:
    with context.database.write() as session:
        row = session.get_one(Asset, operation.payload["asset"])
        row.state = "Succeeded"
        row.modified_at = now()


def _on_failure(session: Session, operation: Operation, error: InferayError) -> None:
    row = session.get(Asset, operation.payload["asset"])
    if row is not None:   # else it was deleted meanwhile
        row.state, row.error = "Failed", error.as_dict()


def _same(row: Asset, properties: dict[str, Any], path: str | None) -> bool:
    """Return whether a version is what is registered again; a URI is not read anew."""
    if not properties.get("flavors") and "flavors" in row.properties:   # as the content has them
        properties = properties | {"flavors": row.properties["flavors"]}
    is_there = path is not None and is_of_mlflow(path)
    if is_there:   # its type is what the content is
        properties = properties | {"modelType": row.properties["modelType"]}
    if row.properties != properties:
        return False
    if row.content_hash is None or path is None or is_there or is_remote(path):
        return True
    return _hash_of_copy(Path(path)) == row.content_hash


def _hash_of_copy(path: Path) -> str:
    """Return the hash that a snapshot of the path would have, without copying its bytes."""
    if path.is_file():
        return hash_path(path)
    with tempfile.TemporaryDirectory() as aside:
        links = Path(aside) / "content"
        shutil.copytree(path, links, ignore=LEFT_OUT, copy_function=os.symlink)
        return hash_path(links)


def _word(kind: str) -> str:
    return {"models": "model", "environments": "environment", "codes": "code"}.get(kind, kind)
