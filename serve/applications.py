"""Ray Serve's applications over its REST API: what shall run is declared all at once.

Serve brings itself to it by and by; `status` says how far it is, and what went wrong.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inferay.engine.ray_dashboard import Dashboard, RayAddress
from inferay.errors import InvalidInput
from inferay.serve.replica_spec import SERVE_DEPLOYMENT, ApplicationSpec

PATH = "/api/serve/applications/"

#: The first declaration starts Serve's controller, which takes seconds.
TIMEOUT_S = 60.0

#: Serve has given up on an application.
FAILED = ("DEPLOY_FAILED", "UNHEALTHY")

#: Of what Serve says; it may hold a whole traceback.
MESSAGE_CHARS_MAX = 20_000


@dataclass(frozen=True)
class ApplicationState:
    """What Serve says of an application.

    Attributes:
        status: `DEPLOYING`, `RUNNING`, `DEPLOY_FAILED`, `UNHEALTHY`, `DELETING`, `NOT_STARTED`.
        message: Why, the deployment's own words first; "" where there is nothing to say.
        replicas: Those that run.
    """

    status: str
    message: str
    replicas: int

    @property
    def has_failed(self) -> bool:
        """Whether Serve has given up on it."""
        return self.status in FAILED


class ServeApplications:
    """Ray Serve on one Ray cluster; safe to use from several threads.

    Raises:
        Unavailable: Every method: Ray does not answer.
    """

    def __init__(self, address: RayAddress) -> None:
        self.address = address
        self._ray = Dashboard(address, TIMEOUT_S)
        self._lock = threading.Lock()
        self._seen: dict[str, ApplicationState] = {}
        self._seen_s = -math.inf

    def put(self, applications: Iterable[ApplicationSpec]) -> None:
        """Declare what shall run, and nothing else; returns at once; idempotent.

        Raises:
            InvalidInput: Serve refuses it; the message is Serve's.
        """
        body = {
            "proxy_location": "Disabled",   # requests reach replicas through the edge
            "applications": [one.to_dict() for one in applications],
        }
        answer = self._ray.request("PUT", PATH, json=body)
        if answer.status_code == 400:
            said = answer.text.strip()[:MESSAGE_CHARS_MAX]
            raise InvalidInput(
                f"Ray Serve refuses the applications: {_last_line(said)}", code="ServeRefuses",
                details=said,
            )
        with self._ray.checked(answer):
            pass

    def status(self, max_age_s: float = 0.0) -> dict[str, ApplicationState]:
        """Return the state of each application by its name; starts nothing.

        Args:
            max_age_s: An answer this old will do: Serve's controller gathers each one anew.
        """
        with self._lock:
            if time.monotonic() - self._seen_s >= max_age_s:
                answer = self._ray.request("GET", PATH)
                with self._ray.checked(answer):
                    found = answer.json()["applications"]
                    self._seen = {name: _state(one) for name, one in found.items()}
                self._seen_s = time.monotonic()
            return self._seen

    def close(self) -> None:
        """Close the connections."""
        self._ray.close()


def _state(application: Mapping[str, Any]) -> ApplicationState:
    ours = application["deployments"].get(SERVE_DEPLOYMENT) or {}
    messages = (ours.get("message") or "", application.get("message") or "")
    message = next((one.strip() for one in messages if one.strip()), "")
    running = [one for one in ours.get("replicas") or [] if one.get("state") == "RUNNING"]
    return ApplicationState(
        str(application["status"]), message[-MESSAGE_CHARS_MAX:], len(running)
    )


def _last_line(text: str) -> str:
    return (text.splitlines() or ["no reason given"])[-1][:500]
