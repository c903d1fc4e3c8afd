"""Online endpoints and their deployments: putting, re-keying and deleting them.

What is put is in rows at once; `online_steps` waits until it is so at the edge and on Ray Serve.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from inferay.config import Workspace
from inferay.control.applications import resolve, write_application
from inferay.control.context import Context
from inferay.control.credentials import ensure_keys, regenerate
from inferay.control.issuers import issuer_of
from inferay.control.operations import begin
from inferay.control.tables import Deployment, Endpoint, Operation, Revision, now
from inferay.engine.resources import (
    OnlineDeployment,
    OnlineEndpoint,
    OnlineEndpointBody,
    from_rest,
    parse_body,
    to_rest,
)
from inferay.errors import Conflict, InvalidInput, NotFound, nearest
from inferay.serve.declared import check_endpoint_properties
from inferay.serve.tokens import first_version

#: The rules that a PUT keeps where its body does not name them, and their fields in a body that is
#: read: else a changed tag, or a null, would take an endpoint off the air.
RULES = {"traffic": "traffic", "mirrorTraffic": "mirror_traffic"}


def put_endpoint(
    workspace: Workspace, session: Session, name: str, body: Mapping[str, Any]
) -> tuple[Endpoint, Operation, bool]:
    """Create or replace an endpoint, in the caller's transaction.

    Returns:
        The row, its operation, and whether it is new.

    Raises:
        InvalidInput: The name or the body is wrong, or it sends requests to no deployment.
        Conflict: A batch endpoint has the name, or a deployment that shall get requests was never
            up.
    """
    entity = from_rest(OnlineEndpoint, name, body)
    row = session.get(Endpoint, name)
    if row is not None:
        check_kind(row, "online")
    is_new = row is None
    row = row or Endpoint(name=name, kind="online", token_version=first_version())
    before = row.properties or {}
    properties: dict[str, Any] = to_rest(entity)["properties"]   # type: ignore[assignment]
    given = parse_body(OnlineEndpointBody, body).properties.model_fields_set
    properties |= {rule: before[rule] for rule, field in RULES.items()
                   if rule in before and field not in given}
    for rule in RULES:
        properties[rule] = {one: share for one, share in properties[rule].items() if share}
        _check_shares(session, name, rule, properties[rule])
    check_endpoint_properties(entity.properties)
    issuer = issuer_of(entity.properties, uses_keys=entity.auth_mode == "key")
    if issuer != issuer_of(before.get("properties") or {}, uses_keys=False):
        row.trusted_keys = []   # not one request longer, whether the new ones can be fetched or not
    row.tags, row.properties = dict(entity.tags), properties
    ensure_keys(workspace, row)
    row.state = "Creating" if is_new else "Updating"
    row.modified_at = now()
    session.add(row)
    target = f"onlineEndpoints/{name}"
    return row, begin(session, "online_endpoint.put", target, {"name": name}), is_new


def put_deployment(
    context: Context, session: Session, endpoint: str, name: str, body: Mapping[str, Any]
) -> tuple[Deployment, Operation, bool]:
    """Create or replace a deployment, in the caller's transaction.

    Returns:
        The row, its operation, and whether it is new.

    Raises:
        InvalidInput: The name or the body is wrong.
        NotFound: The endpoint, or an asset that the body names, does not exist.
        Conflict: An asset is not ready, or the deployment is being deleted.
    """
    get_endpoint(session, endpoint)
    entity = from_rest(OnlineDeployment, name, body, endpoint_name=endpoint)
    application, notices = resolve(context, session, entity)
    row = session.get(Deployment, (endpoint, name))
    if row is not None and row.state == "Deleting":
        raise Conflict(
            f"deployment '{name}' of endpoint '{endpoint}' is being deleted; wait for it",
            code="OperationRunning", target=name,
        )
    is_new = row is None
    row = row or Deployment(endpoint=endpoint, name=name)
    row.tags, row.instances = dict(entity.tags), entity.instance_count
    row.properties = to_rest(entity)["properties"]   # type: ignore[assignment]
    row.state = "Creating" if is_new else "Updating"
    row.error, row.notices = None, notices
    row.modified_at = now()
    session.add(row)
    payload = {
        "endpoint": endpoint, "name": name, "revision": _new_revision(),
        "application": write_application(application),
    }
    target = f"onlineEndpoints/{endpoint}/deployments/{name}"
    return row, begin(session, "online_deployment.put", target, payload), is_new


def regenerate_keys(
    workspace: Workspace, session: Session, name: str, kind: str, value: str | None
) -> Operation:
    """Replace a key of the endpoint, or end all its tokens, in the caller's transaction.

    Raises:
        NotFound: There is no such endpoint.
        InvalidInput: The value is no good key.
    """
    row = get_endpoint(session, name)
    regenerate(workspace, row, kind, value)
    return begin(session, "online_endpoint.rekey", f"onlineEndpoints/{name}/keys", {"name": name})


def get_endpoint(session: Session, name: str) -> Endpoint:
    """Return an endpoint.

    Raises:
        NotFound: There is none, or it is being deleted.
    """
    row = session.get(Endpoint, name)
    if row is None or row.kind != "online" or row.state == "Deleting":
        names = session.scalars(select(Endpoint.name).where(Endpoint.kind == "online"))
        raise NotFound(
            f"there is no online endpoint '{name}'{nearest(name, names)}", target=name
        )
    return row


def get_deployment(session: Session, endpoint: str, name: str) -> Deployment:
    """Return a deployment.

    Raises:
        NotFound: There is none, or no such endpoint.
    """
    get_endpoint(session, endpoint)
    row = session.get(Deployment, (endpoint, name))
    if row is None or row.state == "Deleting":
        raise NotFound(
            f"endpoint '{endpoint}' has no deployment '{name}'"
            f"{nearest(name, _deployments(session, endpoint))}",
            target=name,
        )
    return row


def delete_endpoint(session: Session, name: str) -> Operation:
    """Begin to delete an endpoint with its deployments; its keys and tokens end first.

    Raises:
        NotFound: There is none.
    """
    get_endpoint(session, name).state = "Deleting"
    return begin(session, "online_endpoint.delete", f"onlineEndpoints/{name}", {"name": name})


def delete_deployment(session: Session, endpoint: str, name: str) -> Operation:
    """Begin to delete a deployment, also one that is being put: it may wait long for its instances.

    Raises:
        NotFound: There is none.
        Conflict: It gets requests, or copies of them.
    """
    row = get_deployment(session, endpoint, name)
    properties = get_endpoint(session, endpoint).properties
    for rule, word, flag in (
        ("traffic", "traffic", "--traffic"), ("mirrorTraffic", "mirror traffic", "--mirror-traffic")
    ):
        shares = properties[rule]
        if not shares.get(name):
            continue
        rest = {one: share for one, share in shares.items() if one != name}
        if rule == "traffic":
            others = [*rest, *(one for one in _deployments(session, endpoint) if one != name)]
            to = f"{others[0]}=100" if others else f"{name}=0"
        else:
            to = " ".join(f"{one}={share}" for one, share in rest.items()) or f"{name}=0"
        raise Conflict(
            f"deployment '{name}' of endpoint '{endpoint}' gets {shares[name]} % of its {word}; "
            f"take that away first: inferay online-endpoint update -n {endpoint} {flag} \"{to}\"",
            code="DeploymentHasTraffic", target=name,
        )
    row.state = "Deleting"
    target = f"onlineEndpoints/{endpoint}/deployments/{name}/deletion"
    return begin(session, "online_deployment.delete", target, {"endpoint": endpoint, "name": name})


def check_kind(row: Endpoint, kind: str) -> None:
    """Check that an endpoint that exists is of this kind: names are unique over both.

    Raises:
        Conflict: It is of the other.
    """
    if row.kind != kind:
        raise Conflict(
            f"the name '{row.name}' is that of a{'n' if row.kind[0] == 'o' else ''} {row.kind} "
            f"endpoint; choose another name",
            code="EndpointExists", target=row.name,
        )


def live_revision(session: Session, endpoint: str, name: str) -> Revision | None:
    """Return the revision of a deployment that takes its requests, if it was ever up."""
    return session.scalar(select(Revision).where(
        Revision.endpoint == endpoint, Revision.deployment == name, Revision.is_live
    ))


def _check_shares(session: Session, endpoint: str, rule: str, shares: Mapping[str, int]) -> None:
    for name in shares:
        row = session.get(Deployment, (endpoint, name))
        if row is None or row.state == "Deleting":
            raise InvalidInput(
                f"{rule}: endpoint '{endpoint}' has no deployment '{name}'"
                f"{nearest(name, _deployments(session, endpoint))}",
                target=f"/properties/{rule}",
            )
        if live_revision(session, endpoint, name) is None:
            raise Conflict(
                f"{rule}: deployment '{name}' of endpoint '{endpoint}' is {row.state} and was "
                "never up; requests would get no answer",
                code="DeploymentNotReady", target=name,
            )


def _deployments(session: Session, endpoint: str) -> list[str]:
    query = select(Deployment.name).where(
        Deployment.endpoint == endpoint, Deployment.state != "Deleting"
    )
    return list(session.scalars(query.order_by(Deployment.name)))


def _new_revision() -> str:
    """Return a name that no other revision has; names grow with time."""
    return f"{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
