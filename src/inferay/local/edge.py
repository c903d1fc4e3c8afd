"""The edge in front of local processes: started, told the routing table, asked, and ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from inferay.config import LOCAL_PORT, Workspace
from inferay.edge_process import (
    LOOPBACK,
    carrying,
    edge_url,
    ensure_edge,
    prepare_edge,
    running_edge,
)
from inferay.errors import Unavailable
from inferay.local.state import Endpoint, State
from inferay.processes import choose_port, read_json
from inferay.serve.declared import RETRY_SENT
from inferay.serve.edge.client import EdgeClient
from inferay.serve.routing import DeploymentRoute, EndpointRoute, RoutingTable, digest_of


def ensure(workspace: Workspace) -> None:
    """Start the edge if it does not run; blocks until it answers; idempotent.

    Raises:
        Unavailable: It does not start.
    """
    prepare_edge(workspace)
    carried = carrying(workspace)
    kept = read_json(workspace.edge / "config.json").get("port", LOCAL_PORT)
    port = carried.port if carried is not None else choose_port(LOOPBACK, kept)
    ensure_edge(workspace, LOOPBACK, port, None)


def publish(workspace: Workspace, state: State) -> None:
    """Make the edge carry out what is declared; returns when it does.

    Raises:
        Unavailable: It does not answer.
    """
    with _client(workspace) as client:
        client.publish(table_of(state))


def publish_if_running(workspace: Workspace, state: State) -> None:
    """As `publish`; an edge that does not run carries nothing."""
    if running_edge(workspace) is not None:
        publish(workspace, state)


def public_url(workspace: Workspace) -> str:
    """Return where requests go."""
    port = read_json(workspace.edge / "config.json").get("port", LOCAL_PORT)
    return f"https://{LOOPBACK}:{port}"


def table_of(state: State) -> RoutingTable:
    """Return the routing table that the state declares."""
    return RoutingTable(tuple(
        _endpoint_route(name, one) for name, one in sorted(state.endpoints.items())
    ))


def _endpoint_route(name: str, endpoint: Endpoint) -> EndpointRoute:
    entity = endpoint.entity
    is_retried = entity.properties.get(RETRY_SENT) == "true"
    routes = tuple(
        DeploymentRoute(key, live.revision, live.requests_max, live.timeout_s, is_retried)
        for key, one in sorted(endpoint.deployments.items())
        if (live := one.live_server) is not None
    )
    names = {one.name for one in routes}
    has_keys = entity.auth_mode == "key"
    return EndpointRoute(
        name,
        key_digests=tuple(map(digest_of, endpoint.keys.values())) if has_keys else (),
        token_version=None if has_keys else endpoint.token_version,
        traffic={one: share for one, share in entity.traffic.items() if share and one in names},
        mirror={
            one: share for one, share in entity.mirror_traffic.items() if share and one in names
        },
        deployments=routes,
    )


@contextlib.contextmanager
def _client(workspace: Workspace) -> Iterator[EdgeClient]:
    url = edge_url(workspace)
    if url is None:
        raise Unavailable("the local edge does not run")
    with contextlib.closing(EdgeClient(url, workspace.edge_secret.read_text().strip())) as client:
        yield client
