"""The local mode of online endpoints, with the methods of `inferay.client.Client`."""

from __future__ import annotations

from inferay.config import Workspace
from inferay.local.deployments import LocalDeployments
from inferay.local.endpoints import LocalEndpoints
from inferay.local.state import Store


class LocalClient:
    """Online endpoints of this machine; every method returns when it is done.

    Args:
        workspace: Whose `local` folder keeps them.
        is_debugged: Whether the processes that it starts listen for a debugger, and have no
            request timeout.
    """

    def __init__(self, workspace: Workspace, *, is_debugged: bool = False) -> None:
        store = Store(Workspace(workspace.home / "local"))
        self.online_endpoints = LocalEndpoints(store)
        self.online_deployments = LocalDeployments(store, is_debugged=is_debugged)
