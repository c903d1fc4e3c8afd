"""What a replica is told of its deployment, as values that JSON can carry."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from inferay.serve.autoscaling import autoscaling_config
from inferay.serve.server.spec import ServerSpec

#: Name of the one Serve deployment in an application.
SERVE_DEPLOYMENT = "replica"

_QUEUED_MAX = 1000

#: Of a shutdown, beyond the longest request that may still be in flight.
DRAIN_MARGIN_S = 15.0


@dataclass(frozen=True)
class Probe:
    """How often a replica is asked whether it works, and how often it may not answer."""

    initial_delay_s: float = 10.0
    period_s: float = 10.0
    timeout_s: float = 2.0
    success_threshold: int = 1
    failure_threshold: int = 30


@dataclass(frozen=True)
class ReplicaSpec:
    """One deployment's revision, as each of its replicas runs it.

    Attributes:
        server: The code, and how much is taken on at once.
        revision: A version of the deployment; the edge sends requests to one revision at a time.
        edge_url: Of the edge's management API; None where nothing stands in front of the replica.
        credential: What the replica registers with: good for this revision only.
        log_dir: Where a replica's log, `REPLICA.log`, is written; "" leaves its output alone.
        pairs_dir: Where answers of live requests are kept beside those of their copies.
        host: The address to listen on; None for the node's own, within its cluster.
    """

    server: ServerSpec
    endpoint: str
    deployment: str
    revision: str
    edge_url: str | None = None
    credential: str = field(default="", repr=False)
    log_dir: str = ""
    pairs_dir: str = ""
    host: str | None = "127.0.0.1"
    liveness: Probe = field(default_factory=Probe)
    readiness: Probe = field(default_factory=Probe)

    @property
    def requests_max(self) -> int:
        """Requests at once, running and waiting; the edge sends no more."""
        limits = self.server.limits
        return limits.concurrent_requests_max + limits.waiting_max

    @property
    def drain_s(self) -> float:
        """How long a shutdown may take: the longest request, its wait, and a margin."""
        limits = self.server.limits
        return limits.request_timeout_s + limits.queue_wait_s + DRAIN_MARGIN_S

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes, as JSON can carry it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the spec that `to_dict` wrote."""
        return cls(**values | {
            "server": ServerSpec.from_dict(values["server"]),
            "liveness": Probe(**values["liveness"]),
            "readiness": Probe(**values["readiness"]),
        })


@dataclass(frozen=True)
class ReplicaResources:
    """What one replica asks Ray for.

    Attributes:
        num_cpus: Logical CPUs; fractions let replicas share.
        threads: Of numerical libraries, which else take every CPU of the machine each; None
            leaves them alone.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_bytes: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Scale:
    """How many replicas there are by their utilisation.

    Attributes:
        target_percent: Of `concurrent_requests_max`, in flight on the mean replica.
        polling_s: Between two looks.
    """

    replicas_min: int
    replicas_max: int
    target_percent: float
    polling_s: float = 1.0


@dataclass(frozen=True)
class ApplicationSpec:
    """A revision as one Serve application, with one Serve deployment in it.

    Serve replaces every replica if the arguments of the builder change, and none if only the
    numbers beside them do: so how many replicas there are is no argument.

    Attributes:
        instances: Replicas; where `scale` is given, the first number of them.
        renewals: How often Serve gave up on starting replicas, and shall go on all the same.
    """

    spec: ReplicaSpec
    instances: int = 1
    scale: Scale | None = None
    resources: ReplicaResources = field(default_factory=ReplicaResources)
    renewals: int = 0

    @property
    def name(self) -> str:
        """The application's name: each revision is one of its own."""
        return f"{self.spec.endpoint}.{self.spec.deployment}.{self.spec.revision}"

    def to_dict(self) -> dict[str, Any]:
        """Return the application as Serve's REST API takes it."""
        return {
            "name": self.name, "import_path": "inferay.serve.app:build", "route_prefix": None,
            "args": {"spec": self.spec.to_dict(), "resources": asdict(self.resources)},
            "deployments": [{"name": SERVE_DEPLOYMENT, **self.count, **self._renewal}],
        }

    @property
    def _renewal(self) -> dict[str, Any]:
        """Any option that is another one lets Serve start replicas again; this one does nothing.

        It bounds what waits for a replica through Serve, and requests do not come that way.
        """
        return {"max_queued_requests": _QUEUED_MAX + self.renewals} if self.renewals else {}

    @property
    def count(self) -> dict[str, Any]:
        """How many replicas there are, as Serve's options of a deployment."""
        if self.scale is None:
            return {"num_replicas": self.instances}
        concurrent = self.spec.server.limits.concurrent_requests_max
        return {"autoscaling_config": autoscaling_config(
            replicas_min=self.scale.replicas_min, replicas_max=self.scale.replicas_max,
            initial=self.instances, target=concurrent * self.scale.target_percent / 100,
            polling_s=self.scale.polling_s,
        )}

    @classmethod
    def from_args(cls, args: dict[str, Any]) -> Self:
        """Return what the builder was given in `to_dict`."""
        return cls(
            ReplicaSpec.from_dict(args["spec"]), resources=ReplicaResources(**args["resources"])
        )
