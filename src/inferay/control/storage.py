"""Datastores as the control plane keeps them, and what a request's URIs mean with them.

The secrets of a datastore are encrypted in its row, with a key in the workspace's folder of
secrets; only a job that uses the datastore gets them, in a file of mode 0600 for its driver.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.orm import Session

from inferay.config import ARTIFACT_DATASTORE, Workspace
from inferay.control.context import Context
from inferay.control.sealing import seal, unseal
from inferay.control.tables import Datastore, Job
from inferay.control.tokens import Principal
from inferay.engine.resources import Datastore as DatastoreEntity
from inferay.engine.resources.infrastructure import DatastoreCredentials
from inferay.engine.storage import Access, Place, is_remote, resolve
from inferay.engine.storage.azure_uris import (
    PUBLIC_ENDPOINT,
    account_url,
    blob_uri,
    container_uri,
)
from inferay.errors import Conflict, InvalidInput, NotAuthorized
from inferay.processes import write_private

#: The credentials that each type of datastore may have: one of these sets of fields, of which those
#: of the second tuple may be left out.
_CREDENTIALS: Mapping[str, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = {
    "local": (),
    "s3": ((("access_key_id", "secret_access_key"), ("session_token",)),),
    "azure_blob": (
        (("account_key",), ()), (("sas_token",), ()),
        (("tenant_id", "client_id", "client_secret"), ()),
    ),
}


def root_of(properties: Mapping[str, Any]) -> str:
    """Return the root of a datastore: a folder, or a bucket's or container's prefix as a URI."""
    if properties["datastoreType"] == "Local":
        return str(properties["path"])
    prefix = str(properties.get("prefix") or "").strip("/")
    if properties["datastoreType"] == "S3":
        return resolve(f"s3://{properties['bucket']}/{prefix}", {})
    container = container_uri(
        properties["containerName"], properties["accountName"],
        properties.get("endpoint") or PUBLIC_ENDPOINT,
    )
    return blob_uri(f"{container}/{prefix}")


def check_place(session: Session, name: str, properties: Mapping[str, Any]) -> None:
    """Check the place of an s3 or azure_blob datastore.

    Raises:
        InvalidInput: Bucket, container, account, prefix or endpoint are malformed.
        Conflict: Another datastore has the same place: whose credentials would a job use?
    """
    root = root_of(properties)
    if properties["datastoreType"] == "S3":
        _check_endpoint(properties.get("endpointUrl"))
    else:
        _account_url(properties)
    for other in session.scalars(select(Datastore).where(Datastore.name != name)):
        if root_of(other.properties) == root:
            raise Conflict(
                f"the datastore '{other.name}' is {root} already; use it, or give this one a "
                "prefix of its own",
                target=name,
            )


def _check_endpoint(endpoint_url: str | None) -> None:
    is_http = endpoint_url is None or endpoint_url.lower().startswith(("https://", "http://"))
    if not is_http or (endpoint_url and not resolve(endpoint_url, {})):
        raise InvalidInput(
            f"endpoint_url: expected https://HOST, got '{endpoint_url}'",
            target="/properties/endpointUrl",
        )


def _account_url(properties: Mapping[str, Any]) -> str:
    return account_url(
        properties["accountName"], properties.get("endpoint") or PUBLIC_ENDPOINT,
        properties.get("protocol") or "https",
    )


def seal_secrets(workspace: Workspace, entity: DatastoreEntity) -> str | None:
    """Return the datastore's credentials, encrypted, or None if it has none.

    Raises:
        InvalidInput: They are not those of its type, or not whole.
    """
    given = _given(entity)
    if not given:
        return None
    for needed, optional in _CREDENTIALS[entity.type]:
        if set(needed) <= set(given) <= {*needed, *optional}:
            break
    else:
        sets = " or ".join(" and ".join(needed) for needed, _ in _CREDENTIALS[entity.type])
        raise InvalidInput(
            f"credentials: expected {f'{sets}, which belong together, ' if sets else ''}"
            f"{'or ' if sets else ''}none at all for a datastore of type {entity.type}; got "
            f"{' and '.join(given)}",
            target="/properties/credentials",
        )
    try:
        base64.b64decode(given.get("account_key", ""), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(
            "credentials.account_key: expected the account's key as Azure shows it (base64)",
            target="/properties/credentials",
        ) from None
    if "client_secret" in given and entity.protocol == "http":
        raise InvalidInput(
            "protocol: a service principal's token is sent over https only", target="protocol"
        )
    return seal(workspace, given)


def _given(entity: DatastoreEntity) -> dict[str, str]:
    """Return the credentials that are there, in plain, by field."""
    if entity.credentials is None:
        return {}
    plain: dict[str, str] = {}
    for name in DatastoreCredentials.model_fields:
        value = getattr(entity.credentials, name)
        if value:
            plain[name] = value.get_secret_value() if isinstance(value, SecretStr) else value
    return plain


def roots(session: Session) -> dict[str, str]:
    """Return the datastores' roots by name."""
    return {store.name: root_of(store.properties) for store in session.scalars(select(Datastore))}


def resolve_uri(context: Context, session: Session, who: Principal, uri: str) -> str:
    """Return the local path or URI that a request's URI stands for.

    Any token may name what is in a datastore (but not where the logs and the work of every job
    are), and what is public on the web. A plain path, and S3 or Azure with this machine's own
    credentials, are for an admin.

    Raises:
        NotAuthorized: This token may not name it.
        InvalidInput: It is none that can be read here.
    """
    known = roots(session)
    found = resolve(uri, known)
    if who.role == "admin" or found.startswith(("https://", "http://")):
        return found
    if is_remote(found):
        is_inside = any(Place(root).covers(found) for root in known.values())
    else:
        real = Path(os.path.realpath(found))
        private = os.path.realpath(context.workspace.datastores / ARTIFACT_DATASTORE)
        folders = [os.path.realpath(root) for root in known.values() if not is_remote(root)]
        is_inside = not real.is_relative_to(private) and any(
            real.is_relative_to(folder) for folder in folders
        )
    if not is_inside:
        raise NotAuthorized(
            f"the token '{who.name}' of role {who.role} may only name paths in a datastore, "
            f"and none in {ARTIFACT_DATASTORE}",
            code="Forbidden", target=uri,
        )
    return found


def access_to(context: Context, session: Session, uris: Iterable[str]) -> Access:
    """Return what reaches these resolved URIs, by the datastores that they lie in, and no more.

    Raises:
        InferayError: The secrets of one cannot be decrypted.
    """
    general = Access.from_environment(os.environ)
    remote = [uri for uri in uris if is_remote(uri)]
    covering = [
        store for store in session.scalars(select(Datastore))
        if any(Place(root_of(store.properties)).covers(uri) for uri in remote)
    ]
    places = tuple(_place(context.workspace, store) for store in covering)
    return Access(places, general.allow_private_addresses).only(remote)


def access_of(context: Context, job: Job) -> Access:
    """Return what a job needs to reach its input and output, and those of a job that it redrives.

    Raises:
        InferayError: The secrets of a datastore cannot be decrypted.
    """
    spec = job.spec or {}
    uris = [spec["input"], job.output, (spec.get("redrive") or {}).get("output", "")]
    with context.database.read() as session:
        return access_to(context, session, uris)


def write_access(workspace: Workspace, job: str, access: Access) -> Path | None:
    """Leave what a job's driver needs in a file of mode 0600; None where it needs nothing."""
    path = workspace.access_file(job)
    if access == Access():
        path.unlink(missing_ok=True)
        return None
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(path, json.dumps(access.to_dict()).encode())
    return path


def _place(workspace: Workspace, store: Datastore) -> Place:
    secrets: dict[str, str] = {}
    if store.secrets is not None:
        secrets = unseal(workspace, store.secrets, f"the datastore '{store.name}'")
    is_azure = store.properties["datastoreType"] == "AzureBlob"
    return Place(
        root_of(store.properties),
        _account_url(store.properties) if is_azure else store.properties.get("endpointUrl") or "",
        store.properties.get("region") or "", **secrets,
    )

