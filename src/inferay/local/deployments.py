"""Deployments of local mode: a new process first, then the switch at the edge, then the old one."""

from __future__ import annotations

import builtins
import contextlib
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

from inferay.engine.resources import (
    Model,
    OnlineDeployment,
    ServerFacts,
    is_local_path,
    resolve_local_paths,
)
from inferay.engine.resources.fields import LOG_LINES_MAX
from inferay.engine.scoring.environments.declared import inline_spec
from inferay.engine.scoring.flavors import check_model, flavor_of
from inferay.errors import Conflict, InferayError, InvalidInput, NotFound, Unavailable
from inferay.local import edge
from inferay.local.models import copy_model, remove_unused
from inferay.local.servers import end_all, start, wait_until_ready
from inferay.local.state import Deployment, Server, State, Store
from inferay.serve.declared import probe_of, server_spec
from inferay.serve.log_tail import tail_of
from inferay.serve.replica_spec import ReplicaSpec

#: Revisions of a deployment whose logs are kept.
LOGS_MAX = 10


class LocalDeployments:
    """Deployments on this machine, a process each; see `inferay.client.OnlineDeployments`."""

    def __init__(self, store: Store, *, is_debugged: bool) -> None:
        self._store = store
        self._is_debugged = is_debugged

    def create(
        self, deployment: OnlineDeployment, *, all_traffic: bool = False, wait: bool = True,
        skip_script_validation: bool = False,
    ) -> OnlineDeployment:
        """Create a deployment; see `create_or_update`. One that never came up is replaced.

        Raises:
            Conflict: There is one of the name.
        """
        endpoint = self._store.read().endpoint(_endpoint_name(deployment))
        known = endpoint.deployments.get(deployment.name)
        if known is not None and known.live_server is not None:
            raise Conflict(
                f"the local endpoint '{deployment.endpoint_name}' has a deployment "
                f"'{deployment.name}' already; change it with online-deployment update --local",
                target=deployment.name,
            )
        return self.create_or_update(
            deployment, all_traffic=all_traffic, skip_script_validation=skip_script_validation
        )

    def create_or_update(
        self, deployment: OnlineDeployment, *, all_traffic: bool = False, wait: bool = True,
        skip_script_validation: bool = False,
    ) -> OnlineDeployment:
        """Create or replace a deployment, with the code as it is now; blocks until it is up.

        What served before serves until then, and goes on if it fails.

        Raises:
            InvalidInput: Something in it is wrong, or is not on this machine.
            NotFound: There is no such endpoint.
            UserCodeError: Its script failed; the details are the user's traceback.
            Unavailable: It was not up in time.
        """
        deployment = resolve_local_paths(
            deployment, skip_script_validation=skip_script_validation
        )
        endpoint, workspace = _endpoint_name(deployment), self._store.workspace
        with self._store.changing() as state:
            deployments = state.endpoint(endpoint).deployments
            spec, model = self._resolve(deployment)
            edge.ensure(workspace)
            kept = deployments.setdefault(deployment.name, Deployment({}))
            before = kept.live
            kept.declared = deployment.model_dump(mode="json", exclude_none=True)
            kept.error = None
            server = start(workspace, spec, model=model, is_debugged=self._is_debugged)
            try:
                kept.servers.append(server)
                self._store.write(state)
                wait_until_ready(workspace, spec, server)
                kept.live = server.revision
                edge.publish(workspace, state)
            except BaseException as error:   # Ctrl-C too: nothing half started stays
                kept.live = before
                if isinstance(error, InferayError):
                    kept.error = error.as_dict()
                self._take_back(state, kept, server)
                raise
            if all_traffic:
                state.endpoint(endpoint).declared["traffic"] = {deployment.name: 100}
                edge.publish(workspace, state)
            self._store.write(state)
            self._end(state, kept, [one for one in kept.servers if one != server])
            self._store.write(state)
            self._prune_logs(endpoint, deployment.name)
            return self._entity(kept).with_warnings(_notices(deployment))

    def get(self, name: str, endpoint_name: str) -> OnlineDeployment:
        """Return a deployment.

        Raises:
            NotFound: There is none.
        """
        return self._entity(self._store.read().deployment(endpoint_name, name))

    def list(self, endpoint_name: str) -> builtins.list[OnlineDeployment]:
        """Return an endpoint's deployments, by name."""
        found = self._store.read().endpoint(endpoint_name).deployments
        return [self._entity(one) for _, one in sorted(found.items())]

    def delete(self, name: str, endpoint_name: str, *, wait: bool = True) -> None:
        """Delete a deployment; its process answers what is in flight, and ends.

        Raises:
            Conflict: It gets requests, or copies.
        """
        workspace = self._store.workspace
        with self._store.changing() as state:
            kept = state.deployment(endpoint_name, name)
            endpoint = state.endpoint(endpoint_name)
            for rule, flag in (("traffic", "--traffic"), ("mirror_traffic", "--mirror-traffic")):
                share = endpoint.declared.get(rule, {}).get(name)
                if share:
                    raise Conflict(
                        f"deployment '{name}' of the local endpoint '{endpoint_name}' gets {share} "
                        f"% of its {rule.replace('_', ' ')}; take that away first: inferay "
                        f"online-endpoint update --local -n {endpoint_name} {flag} \"{name}=0\"",
                        code="DeploymentHasTraffic", target=name,
                    )
            del endpoint.deployments[name]
            edge.publish_if_running(workspace, state)
            self._end(state, kept, kept.servers)
            self._store.write(state)
            shutil.rmtree(workspace.online_logs(endpoint_name, name), ignore_errors=True)

    def get_logs(
        self, name: str, endpoint_name: str, *, lines: int = 5000,
        container: str = "inference-server",
    ) -> str:
        """Return the last lines of what its process printed: the newest one's, if that failed."""
        if container == "storage-initializer":   # models are copied by the command itself
            return ""
        if container != "inference-server":
            raise InvalidInput(
                f"container: expected inference-server or storage-initializer, got '{container}'"
            )
        if not 1 <= lines <= LOG_LINES_MAX:
            raise InvalidInput(
                f"lines: expected an integer from 1 to {LOG_LINES_MAX}, got {lines}", target="lines"
            )
        kept = self._store.read().deployment(endpoint_name, name)
        folder = self._store.workspace.online_logs(endpoint_name, name)
        if kept.live is not None and kept.error is None:
            return tail_of(folder / kept.live, lines)
        newest = max((one for one in folder.glob("*") if one.is_dir()), default=None)
        return "" if newest is None else tail_of(newest, lines)

    def debug_port(self, name: str, endpoint_name: str) -> int:
        """Return where a deployment's process listens for a debugger.

        Raises:
            NotFound: It does not, or there is no such deployment.
        """
        server = self._store.read().deployment(endpoint_name, name).live_server
        if server is None or server.debug_port is None:
            raise NotFound(f"deployment '{name}' does not listen for a debugger", target=name)
        return server.debug_port

    def _resolve(self, deployment: OnlineDeployment) -> tuple[ReplicaSpec, str]:
        """Return what its process is told, and the folder of its copy of the model."""
        endpoint, workspace = str(deployment.endpoint_name), self._store.workspace
        code = deployment.code_configuration
        if code is not None and not is_local_path(code.code):
            raise InvalidInput(
                f"code: '{code.code}' is no folder of this machine; give a path in local mode",
                target="code_configuration",
            )
        model = _model_path(deployment)
        kind = deployment.model.type if isinstance(deployment.model, Model) else None
        flavor = flavor_of(kind, has_code=code is not None)
        if flavor and model is not None:
            check_model(flavor, model)
        environment, _ = inline_spec(
            deployment, mlflow_model=model if flavor == "mlflow" else None
        )
        # First without the model: what is wrong shall be known before gigabytes are copied.
        spec = server_spec(
            deployment, code_dir=code.code if code else "", name=endpoint, version=deployment.name,
            prefix=f"/endpoints/{endpoint}", flavor=flavor, environment=environment,
        )
        copy = copy_model(workspace.home / "models", model) if model is not None else None
        if copy is not None:
            spec = server_spec(
                deployment, code_dir=spec.code_dir, model=str(copy), name=endpoint,
                version=deployment.name, prefix=spec.prefix, flavor=flavor,
                environment=environment,
            )
        return ReplicaSpec(
            spec, endpoint=endpoint, deployment=deployment.name, revision=_new_revision(),
            pairs_dir=str(workspace.pairs_folder(endpoint)),
            liveness=probe_of(deployment.liveness_probe),
            readiness=probe_of(deployment.readiness_probe),
        ), "" if copy is None else str(copy)

    def _take_back(self, state: State, kept: Deployment, server: Server) -> None:
        with contextlib.suppress(Unavailable):   # the next command publishes again
            edge.publish(self._store.workspace, state)
        self._end(state, kept, [server])
        self._store.write(state)

    def _end(
        self, state: State, kept: Deployment, servers: builtins.list[Server]
    ) -> None:
        """End processes of a deployment and forget them, with the models that nobody else uses."""
        end_all(self._store.workspace, servers)
        kept.servers = [one for one in kept.servers if one not in servers]
        remove_unused(
            self._store.workspace.home / "models", (one.model for one in state.servers)
        )

    def _entity(self, kept: Deployment) -> OnlineDeployment:
        error, live = kept.error, kept.live_server
        if error is None and live is not None and live.process.find() is None:
            error = Unavailable(
                "its process has ended; start it again with online-deployment update --local",
                code="ProcessEnded",
            ).as_dict()
        is_up = error is None and live is not None
        return kept.entity.with_facts(ServerFacts(
            provisioning_state="Succeeded" if is_up else "Failed", error=error,
        ))

    def _prune_logs(self, endpoint: str, name: str) -> None:
        found = sorted(self._store.workspace.online_logs(endpoint, name).glob("*"))
        for one in found[:-LOGS_MAX]:   # names grow with time
            shutil.rmtree(one, ignore_errors=True)


def _endpoint_name(deployment: OnlineDeployment) -> str:
    if deployment.endpoint_name is None:
        raise InvalidInput(
            "endpoint_name: missing; it is required (or --endpoint-name)", target="endpoint_name"
        )
    return str(deployment.endpoint_name)


def _model_path(deployment: OnlineDeployment) -> Path | None:
    model = deployment.model
    if model is None:
        return None
    if not isinstance(model, Model) or not is_local_path(model.path):
        said = model.path if isinstance(model, Model) else model
        raise InvalidInput(
            f"model: '{said}' is not on this machine; local mode takes model: {{path: FOLDER}}",
            target="model",
        )
    return Path(model.path)


def _notices(deployment: OnlineDeployment) -> builtins.list[str]:
    """Return what differs here from what is declared."""
    scale = deployment.scale_settings
    if deployment.instance_count == 1 and scale.type == "default":
        return []
    return ["local mode runs one process of a deployment, whatever its number of instances"]


def _new_revision() -> str:
    """Return a name that no other revision has; names grow with time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
