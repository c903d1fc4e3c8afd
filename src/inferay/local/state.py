"""What is declared in local mode, and the processes that carry it out, in one private file."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from inferay.config import Workspace
from inferay.engine.resources import OnlineDeployment, OnlineEndpoint
from inferay.errors import Conflict, InferayError, NotFound, nearest
from inferay.processes import Process, lock, write_json

#: How long a command waits for another one to end; a deployment's `init()` may take longer.
LOCK_S = 30.0

_LOOK_S = 0.05


@dataclass(frozen=True)
class Server:
    """A process of a deployment: one revision of it.

    Attributes:
        id: Of the replica at the edge.
        requests_max: Requests at once, running and waiting.
        timeout_s: After this the edge gives up on it.
        drain_s: How long its shutdown may take.
        model: The folder of its copy of the model, or "".
        debug_port: Where it listens for a debugger, if it does.
    """

    revision: str
    id: str
    process: Process
    requests_max: int
    timeout_s: float
    drain_s: float
    model: str = ""
    debug_port: int | None = None

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """Return what JSON kept of it."""
        return cls(**values | {"process": Process(**values["process"])})


@dataclass
class Deployment:
    """A deployment as it was last declared.

    Attributes:
        declared: The entity's fields.
        error: Why what was last declared did not come up; None if it did.
        live: The revision that takes its requests, if it was ever up.
        servers: Its processes; more than the live one only while a command works on it, or where
            one was killed in the middle.
    """

    declared: dict[str, Any]
    error: dict[str, Any] | None = None
    live: str | None = None
    servers: list[Server] = field(default_factory=list)

    @property
    def entity(self) -> OnlineDeployment:
        """What was declared."""
        return OnlineDeployment(**self.declared)

    @property
    def live_server(self) -> Server | None:
        """The process that takes its requests, whether it still runs or not."""
        return next((one for one in self.servers if one.revision == self.live), None)

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """Return what JSON kept of it."""
        return cls(**values | {"servers": [Server.read(one) for one in values["servers"]]})


@dataclass
class Endpoint:
    """An endpoint as it was last declared.

    Attributes:
        declared: The entity's fields.
        keys: `primary` and `secondary`.
        token_version: What its tokens must have.
        deployments: By name.
    """

    declared: dict[str, Any]
    keys: dict[str, str]
    token_version: int
    deployments: dict[str, Deployment] = field(default_factory=dict)

    @property
    def entity(self) -> OnlineEndpoint:
        """What was declared."""
        return OnlineEndpoint(**self.declared)

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """Return what JSON kept of it."""
        deployments = values["deployments"].items()
        return cls(**values | {
            "deployments": {name: Deployment.read(one) for name, one in deployments}
        })


@dataclass
class State:
    """All endpoints, by name."""

    endpoints: dict[str, Endpoint] = field(default_factory=dict)

    def endpoint(self, name: str) -> Endpoint:
        """Return an endpoint.

        Raises:
            NotFound: There is none.
        """
        found = self.endpoints.get(name)
        if found is None:
            raise NotFound(
                f"there is no local endpoint '{name}'"
                f"{nearest(name, self.endpoints) or '; inferay online-endpoint create --local'}",
                target=name,
            )
        return found

    def deployment(self, endpoint: str, name: str) -> Deployment:
        """Return a deployment.

        Raises:
            NotFound: There is none, or no such endpoint.
        """
        known = self.endpoint(endpoint).deployments
        if name not in known:
            raise NotFound(
                f"the local endpoint '{endpoint}' has no deployment '{name}'{nearest(name, known)}",
                target=name,
            )
        return known[name]

    @property
    def servers(self) -> list[Server]:
        """Every process."""
        return [
            server for endpoint in self.endpoints.values()
            for deployment in endpoint.deployments.values() for server in deployment.servers
        ]


class Store:
    """Where local mode keeps its state.

    Args:
        workspace: The folder of local mode, as a workspace of its own: an edge, logs, secrets.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._path = workspace.home / "state.json"

    def read(self) -> State:
        """Return what is there.

        Raises:
            InferayError: The file is damaged.
        """
        try:
            kept = json.loads(self._path.read_bytes())
            return State({name: Endpoint.read(one) for name, one in kept["endpoints"].items()})
        except FileNotFoundError:
            return State()
        except (ValueError, KeyError, TypeError) as error:
            raise InferayError(f"{self._path} is damaged ({error!r}); delete it") from None

    def write(self, state: State) -> None:
        """Keep this from now on."""
        write_json(self._path, asdict(state))

    @contextlib.contextmanager
    def changing(self) -> Iterator[State]:
        """Give the state to one command at a time; the caller writes it.

        Raises:
            Conflict: Another command works on it for long.
        """
        ws = self.workspace
        for folder in (ws.home, ws.secrets, ws.tls, ws.run, ws.logs, ws.edge):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        until_s = time.monotonic() + LOCK_S
        while True:
            with lock(ws, wait=False) as is_ours:
                if is_ours:
                    yield self.read()
                    return
            if time.monotonic() >= until_s:
                raise Conflict(
                    "another command works on the local endpoints; try again when it has ended",
                    code="Busy",
                )
            time.sleep(_LOOK_S)
