"""Datastores as the control plane keeps them, and what a request's URIs mean with them.

The secrets of a datastore are encrypted in its row, with a key in the workspace's folder of
secrets; only a job that uses the datastore gets them, in a file of mode 0600 for its driver.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from inferay.config import ARTIFACT_DATASTORE, Workspace
from inferay.control.context import Context
from inferay.control.sealing import seal, unseal
from inferay.control.tables import Datastore, Job
from inferay.control.tokens import Principal
from inferay.engine.resources import Datastore as DatastoreEntity
from inferay.engine.storage import Access, Place, is_remote, resolve
from inferay.errors import Conflict, InvalidInput, NotAuthorized
from inferay.processes import write_private

#: The secret part of an s3 datastore, and what it may do without.
_SECRETS = ("access_key_id", "secret_access_key", "session_token")


def root_of(properties: Mapping[str, Any]) -> str:
    """Return the root of a datastore: a folder, or `s3://BUCKET/PREFIX`."""
    if properties["datastoreType"] == "Local":
        return str(properties["path"])
    prefix = str(properties.get("prefix") or "").strip("/")
    return resolve(f"s3://{properties['bucket']}/{prefix}", {})


def check_place(session: Session, name: str, properties: Mapping[str, Any]) -> None:
    """Check the place of an s3 datastore.

    Raises:
        InvalidInput: Bucket, prefix or endpoint are malformed.
        Conflict: Another datastore has the same place: whose credentials would a job use?
    """
    root = root_of(properties)
    endpoint_url = properties.get("endpointUrl")
    is_http = endpoint_url is None or endpoint_url.lower().startswith(("https://", "http://"))
    if not is_http or (endpoint_url and not resolve(endpoint_url, {})):
        raise InvalidInput(
            f"endpoint_url: expected https://HOST, got '{endpoint_url}'",
            target="/properties/endpointUrl",
        )
    for other in session.scalars(select(Datastore).where(Datastore.name != name)):
        if root_of(other.properties) == root:
            raise Conflict(
                f"the datastore '{other.name}' is {root} already; use it, or give this one a "
                "prefix of its own",
                target=name,
            )


def seal_secrets(workspace: Workspace, entity: DatastoreEntity) -> str | None:
    """Return the datastore's secrets, encrypted, or None if it has none.

    Raises:
        InvalidInput: Only one of key id and key is given.
    """
    given = entity.credentials
    if given is None or (given.access_key_id is None and given.secret_access_key is None):
        return None
    if not given.access_key_id or given.secret_access_key is None:
        raise InvalidInput(
            "credentials: access_key_id and secret_access_key belong together; leave both out for "
            "AWS's standard chain",
            target="/properties/credentials",
        )
    token = given.session_token.get_secret_value() if given.session_token else ""
    values = (given.access_key_id, given.secret_access_key.get_secret_value(), token)
    return seal(workspace, dict(zip(_SECRETS, values, strict=True)))


def roots(session: Session) -> dict[str, str]:
    """Return the datastores' roots by name."""
    return {store.name: root_of(store.properties) for store in session.scalars(select(Datastore))}


def resolve_uri(context: Context, session: Session, who: Principal, uri: str) -> str:
    """Return the local path or URI that a request's URI stands for.

    Any token may name what is in a datastore (but not where the logs and the work of every job
    are), and what is public on the web. A plain path, and S3 with this machine's own credentials,
    are for an admin.

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
    return Place(
        root_of(store.properties), store.properties.get("endpointUrl") or "",
        store.properties.get("region") or "", **secrets,
    )

