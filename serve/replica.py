"""A replica on Ray Serve: placed, watched and replaced by Serve, which sees none of its requests.

With an edge, its server listens on a port of its own. Without one, the same app answers Serve's
HTTP, and Serve counts and drains.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import ray
from ray import serve

from inferay.errors import InferayError
from inferay.serve.autoscaling import IN_FLIGHT
from inferay.serve.liveness import Liveness
from inferay.serve.log_guard import protect_serve_handlers
from inferay.serve.member import Member
from inferay.serve.replica_spec import ReplicaSpec
from inferay.serve.server.app import InferenceApp
from inferay.serve.server.hosting import Hosted
from inferay.serve.server.request_log import begin_logging

_log = logging.getLogger("inferay.replica")


class EdgeReplica:
    """Behind the edge.

    Args:
        spec: A `ReplicaSpec` as `to_dict` gives it, with an `edge_url`.
    """

    _member: Member | None = None   # Serve calls `__del__` of a replica that never was, too

    def __init__(self, spec: dict[str, Any]) -> None:
        found = ReplicaSpec.from_dict(spec)
        _begin_logging(found)
        host = found.host or str(ray.util.get_node_ip_address())   # type: ignore[no-untyped-call]
        replica_id = serve.get_replica_context().replica_id.unique_id
        try:
            member = Member(found, replica_id, host=host)
        except InferayError as error:   # Ray prints it elsewhere; people read the replica's log
            _log.error("%s", "\n".join(filter(None, (error.details, error.message))))
            raise
        protect_serve_handlers()   # again: what Serve's loggers lost is given back
        self._liveness = Liveness(found.liveness, lambda: member.app.is_stuck)
        self._member = member
        member.join()   # if it is not taken in, its log says so, and it goes on trying

    def check_health(self) -> None:
        """Tell Serve whether this replica is to be replaced."""
        protect_serve_handlers()
        self._liveness.check()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what `autoscaling.Policy` reads."""
        assert self._member is not None
        return {IN_FLIGHT: self._member.meter.mean_in_flight()}

    async def __del__(self) -> None:
        """Leave the edge and drain; Serve waits for it."""
        if self._member is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._member.leave_and_drain)


@serve.ingress()
class IngressReplica:
    """Behind Serve's own HTTP, for people who drive Serve themselves.

    Args:
        spec: As `EdgeReplica` has it, without an `edge_url`.
    """

    _hosted: Hosted | None = None

    def __init__(self, spec: dict[str, Any]) -> None:
        found = ReplicaSpec.from_dict(spec)
        _begin_logging(found)
        hosted = Hosted(found.server)
        protect_serve_handlers()
        self._liveness = Liveness(found.liveness, lambda: hosted.app.is_stuck)
        self._hosted = hosted

    def __serve_build_asgi_app__(self) -> InferenceApp:
        """Return what answers; Serve asks once the constructor has returned."""
        assert self._hosted is not None
        return self._hosted.app

    def check_health(self) -> None:
        """Tell Serve whether this replica is to be replaced."""
        protect_serve_handlers()
        self._liveness.check()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what `autoscaling.Policy` reads."""
        assert self._hosted is not None
        return {IN_FLIGHT: float(self._hosted.app.in_flight)}

    def __del__(self) -> None:
        """Run the user's `shutdown()`: Serve has drained."""
        if self._hosted is not None:
            self._hosted.shutdown()
            self._hosted = None


def _begin_logging(spec: ReplicaSpec) -> None:
    """Let the script's and the server's lines appear, and keep Serve's own from being closed."""
    begin_logging(spec.server.logging_level)
    protect_serve_handlers()
