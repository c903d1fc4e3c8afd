"""A deployment's script behind the edge: loaded, guarded, on a port, and registered.

The same in a replica on Ray Serve and in a plain process.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inferay.errors import InferayError, Unavailable
from inferay.serve.guard import Guard
from inferay.serve.meter import Meter
from inferay.serve.mirror.pairs import PairLog
from inferay.serve.mirror.sender import Mirror
from inferay.serve.registration import STOP_S, Admission, Registration
from inferay.serve.replica_log import ReplicaLog
from inferay.serve.replica_spec import ReplicaSpec
from inferay.serve.server.app import InferenceApp
from inferay.serve.server.hosting import Hosted
from inferay.serve.server.serving import Serving

#: Of a copy, beyond the longest request and its wait: the shadow's own answer may be slower.
MIRROR_MARGIN_S = 5.0

#: For the last copies when a replica ends.
MIRROR_END_S = 2.0


class Member:
    """One replica of the edge; blocks until its script's `init()` has returned and it listens.

    One in a process, as `Hosted` is. The edge is told if it cannot start.

    Args:
        spec: With an `edge_url`.
        replica_id: Its own, among all replicas of the edge.
        host: The address to listen on.
        port: 0 for a free one.

    Raises:
        UserCodeError: The script cannot be loaded, or its `init()` raised.
        InvalidInput: A Swagger file of the user's is not JSON.
        Unavailable: The port is taken.
    """

    def __init__(
        self, spec: ReplicaSpec, replica_id: str, *, host: str, port: int = 0
    ) -> None:
        self._spec = spec
        self._host = host
        self._registration = Registration(spec, replica_id)
        try:
            if spec.log_dir:
                _begin_log(Path(spec.log_dir) / f"{replica_id}.log")
            self._hosted = Hosted(spec.server)
            self._mirror = _mirror_of(spec, replica_id)
            self._guard = Guard(
                self._hosted.app, endpoint=spec.endpoint, deployment=spec.deployment,
                revision=spec.revision, mirror=self._mirror,
                bytes_max=spec.server.limits.body_bytes_max,
            )
            self._serving = Serving(self._guard, host, port)
            self._serving.start()
        except InferayError as error:
            self._registration.failed(error)
            raise

    @property
    def app(self) -> InferenceApp:
        """The inference server's own app, without the guard."""
        return self._hosted.app

    @property
    def meter(self) -> Meter:
        """How busy it is."""
        return self._guard.meter

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._serving.port

    def join(self) -> bool:
        """Enter the edge; return whether it has taken this replica in, in time."""
        return self._registration.join(
            self._host, self.port, counters=self._counters, on_asking=self._expect,
            on_admitted=self._admit,
        )

    def leave_and_drain(self) -> None:
        """Leave the edge, answer what is in flight, and end; blocks until the drain's limit.

        What the user's `shutdown()` raises is the caller's to report.
        """
        self._registration.leave_and_drain(lambda: self.meter.in_flight)
        self._mirror.close(timeout_s=MIRROR_END_S)
        self._serving.stop(timeout_s=STOP_S)
        self._hosted.shutdown()

    def _expect(self, is_asking: bool) -> None:
        self._guard.is_expecting = is_asking

    def _admit(self, admission: Admission) -> None:
        self._guard.admit(admission.secret)
        self._mirror.point_to(admission.mirror_host, admission.mirror_port, admission.secret)

    def _counters(self) -> Mapping[str, Any]:
        return {**self.meter.counters(), "mirror": self._mirror.counters()}


def _mirror_of(spec: ReplicaSpec, replica_id: str) -> Mirror:
    limits = spec.server.limits
    log = None
    if spec.pairs_dir:
        log = PairLog(Path(spec.pairs_dir), spec.deployment, spec.revision, replica_id)
    timeout_s = limits.request_timeout_s + limits.queue_wait_s + MIRROR_MARGIN_S
    return Mirror(timeout_s=timeout_s, log=log)


def _begin_log(path: Path) -> None:
    try:
        ReplicaLog(path)
    except OSError as error:
        raise Unavailable(f"the log {path} cannot be written: {error}") from None
