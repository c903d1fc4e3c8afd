"""The routing table as the rows declare it: pure, but for the session that reads them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from inferay.control.applications import read_application
from inferay.control.credentials import uses_keys
from inferay.control.tables import Deployment, Endpoint, Revision
from inferay.serve.declared import RETRY_SENT, route_timeout_s
from inferay.serve.routing import DeploymentRoute, EndpointRoute, RoutingTable, TrustedKey


def read_table(session: Session) -> RoutingTable:
    """Return the table of all online endpoints, by name."""
    endpoints = select(Endpoint).where(Endpoint.kind == "online", Endpoint.state != "Deleting")
    live = select(Revision).where(Revision.is_live).join(
        Deployment,
        (Deployment.endpoint == Revision.endpoint) & (Deployment.name == Revision.deployment),
    ).where(Deployment.state != "Deleting")
    revisions = list(session.scalars(live.order_by(Revision.deployment)))
    return RoutingTable(tuple(
        endpoint_route(row, [one for one in revisions if one.endpoint == row.name])
        for row in session.scalars(endpoints.order_by(Endpoint.name))
    ))


def endpoint_route(row: Endpoint, live: Iterable[Revision]) -> EndpointRoute:
    """Return an endpoint's credentials and rule, over the live revisions of its deployments."""
    is_retried = row.properties.get("properties", {}).get(RETRY_SENT) == "true"
    routes = tuple(_deployment_route(one, is_retried=is_retried) for one in live)
    names = {one.name for one in routes}
    has_keys = uses_keys(row)
    return EndpointRoute(
        row.name,
        key_digests=tuple(row.key_digests) if has_keys else (),
        token_version=None if has_keys else row.token_version,
        traffic=_shares(row, "traffic", names), mirror=_shares(row, "mirrorTraffic", names),
        deployments=routes,
        trusted_keys=() if has_keys else tuple(TrustedKey(**one) for one in row.trusted_keys),
    )


def _deployment_route(live: Revision, *, is_retried: bool) -> DeploymentRoute:
    spec = read_application(live.application).spec
    return DeploymentRoute(
        live.deployment, live.name, spec.requests_max, route_timeout_s(spec), is_retried
    )


def _shares(row: Endpoint, name: str, deployments: set[str]) -> dict[str, int]:
    shares = row.properties.get(name) or {}
    return {one: share for one, share in shares.items() if share and one in deployments}
