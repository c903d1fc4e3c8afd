"""Endpoints of local mode: declared, invoked, deleted; with keys and traffic rules."""

from __future__ import annotations

import builtins
import secrets
import shutil
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from inferay.client.online import Answer, answer_of, scoring_request
from inferay.edge_process import end_edge
from inferay.engine.resources import OnlineEndpoint, ServerFacts
from inferay.errors import Conflict, InvalidInput, Unavailable, nearest
from inferay.local import edge
from inferay.local.models import remove_unused
from inferay.local.servers import DEBUGGED_S, end_all
from inferay.local.state import Endpoint, State, Store
from inferay.serve.declared import check_endpoint_properties
from inferay.serve.tokens import first_version, sign

KEY_BYTES = 32
KEY_KINDS = ("primary", "secondary")


class LocalEndpoints:
    """Endpoints on this machine, by plain processes; see `inferay.client.OnlineEndpoints`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create_or_update(self, entity: OnlineEndpoint, *, wait: bool = True) -> OnlineEndpoint:
        """Create or replace an endpoint; blocks until the edge carries it out, `wait` or not.

        Traffic rules that the entity does not set stay as they are. The edge is started if it does
        not run.

        Raises:
            InvalidInput: It sends requests to no deployment.
            Conflict: It sends requests to a deployment that was never up.
        """
        check_endpoint_properties(entity.properties)
        with self._store.changing() as state:
            known = state.endpoints.get(entity.name)
            declared = entity.model_dump(mode="json", exclude_none=True)
            for rule in ("traffic", "mirror_traffic"):
                if known is not None and rule not in entity.model_fields_set:
                    declared[rule] = known.declared.get(rule, {})
                declared[rule] = {one: share for one, share in declared[rule].items() if share}
                _check_shares(entity.name, known, rule, declared[rule])
            if known is None:
                keys = {kind: secrets.token_urlsafe(KEY_BYTES) for kind in KEY_KINDS}
                known = state.endpoints[entity.name] = Endpoint(declared, keys, first_version())
            known.declared = declared
            edge.ensure(self._store.workspace)
            self._store.write(state)
            edge.publish(self._store.workspace, state)
            return self._entity(known)

    def get(self, name: str) -> OnlineEndpoint:
        """Return an endpoint.

        Raises:
            NotFound: There is none.
        """
        return self._entity(self._store.read().endpoint(name))

    def list(self) -> builtins.list[OnlineEndpoint]:
        """Return all endpoints, by name."""
        return [self._entity(one) for _, one in sorted(self._store.read().endpoints.items())]

    def delete(self, name: str, *, wait: bool = True) -> None:
        """Delete an endpoint and end its processes; the last one's ends the edge.

        Its keys end first; what is in flight is answered.

        Raises:
            NotFound: There is none.
        """
        workspace = self._store.workspace
        with self._store.changing() as state:
            servers = [
                one for deployment in state.endpoint(name).deployments.values()
                for one in deployment.servers
            ]
            rest = State({key: one for key, one in state.endpoints.items() if key != name})
            edge.publish_if_running(workspace, rest)
            end_all(workspace, servers)
            self._store.write(rest)
            remove_unused(workspace.home / "models", (one.model for one in rest.servers))
            for folder in (workspace.logs / "online" / name, workspace.pairs_folder(name)):
                shutil.rmtree(folder, ignore_errors=True)
            if not rest.endpoints:
                end_edge(workspace)

    def get_keys(self, name: str) -> dict[str, Any]:
        """Return what opens the endpoint: `primaryKey` and `secondaryKey`, or a token's fields."""
        endpoint = self._store.read().endpoint(name)
        if endpoint.entity.auth_mode == "key":
            return {f"{kind}Key": endpoint.keys[kind] for kind in KEY_KINDS}
        key = self._store.workspace.token_key.read_text().strip()
        return dict(sign(key, name, endpoint.token_version, datetime.now(UTC)))

    def regenerate_keys(
        self, name: str, key_type: str = "primary", *, wait: bool = True
    ) -> None:
        """Replace one key, `primary` or `secondary`, or end all tokens; at once."""
        with self._store.changing() as state:
            endpoint = state.endpoint(name)
            if endpoint.entity.auth_mode == "key":
                endpoint.keys[key_type] = secrets.token_urlsafe(KEY_BYTES)
            else:
                endpoint.token_version += 1
            edge.ensure(self._store.workspace)
            self._store.write(state)
            edge.publish(self._store.workspace, state)

    def invoke(
        self, name: str, request: bytes | str | Mapping[str, Any] | builtins.list[Any], *,
        deployment_name: str | None = None,
    ) -> Answer:
        """Score one request with the endpoint's own credentials; blocks until it is answered.

        See `inferay.client.OnlineEndpoints.invoke`. Without a traffic rule the only deployment
        answers, as in Azure's local mode.
        """
        endpoint = self._store.read().endpoint(name)
        if deployment_name is None and not endpoint.declared["traffic"]:
            deployment_name = _only_deployment(endpoint)
        body, headers = scoring_request(request, self.get_keys(name), deployment_name)
        ca = self._store.workspace.ca_certificate
        trusted = ssl.create_default_context(cafile=str(ca))
        try:
            answer = httpx.post(
                f"{edge.public_url(self._store.workspace)}/endpoints/{name}/score", content=body,
                headers=headers, verify=trusted, trust_env=False, timeout=DEBUGGED_S,
            )
        except httpx.HTTPError as error:
            raise Unavailable(
                f"the local edge does not answer ({error}); start it again: inferay "
                f"online-endpoint update --local -n {name}"
            ) from None
        if answer.status_code == 404 and deployment_name is not None:
            self._store.read().deployment(name, deployment_name)   # says which names there are
        if answer.status_code == 503:
            _check_processes(name, endpoint, deployment_name)
        return answer_of(name, answer, flags="--local ")

    def _entity(self, kept: Endpoint) -> OnlineEndpoint:
        entity = kept.entity
        url = f"{edge.public_url(self._store.workspace)}/endpoints/{entity.name}"
        return entity.with_facts(ServerFacts(
            provisioning_state="Succeeded", scoring_uri=f"{url}/score",
            openapi_uri=f"{url}/swagger.json",
        ))


def _check_shares(
    name: str, known: Endpoint | None, rule: str, shares: Mapping[str, int]
) -> None:
    deployments = known.deployments if known is not None else {}
    for one in shares:
        if one not in deployments:
            raise InvalidInput(
                f"{rule}: the local endpoint '{name}' has no deployment '{one}'"
                f"{nearest(one, deployments)}",
                target=rule,
            )
        if deployments[one].live_server is None:
            raise Conflict(
                f"{rule}: deployment '{one}' of the local endpoint '{name}' was never up; requests "
                "would get no answer",
                code="DeploymentNotReady", target=one,
            )


def _only_deployment(endpoint: Endpoint) -> str | None:
    found = [name for name, one in endpoint.deployments.items() if one.live_server is not None]
    return found[0] if len(found) == 1 else None


def _check_processes(name: str, endpoint: Endpoint, deployment_name: str | None) -> None:
    """Check that what should have answered runs.

    Raises:
        Unavailable: Its process ended.
    """
    asked = [deployment_name] if deployment_name else endpoint.entity.traffic
    for one in asked:
        kept = endpoint.deployments.get(one)
        server = kept.live_server if kept is not None else None
        if server is not None and server.process.find() is None:
            raise Unavailable(
                f"the process of deployment '{one}' has ended; see inferay online-deployment "
                f"get-logs --local -e {name} -n {one}, and start it again: inferay "
                f"online-deployment update --local -e {name} -n {one}",
                code="ProcessEnded", target=one,
            )
