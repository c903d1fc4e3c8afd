"""`build`: a Serve application of a deployment, for the control plane and for people.

People who drive Serve themselves run `serve run inferay.serve:build deployment=deployment.yml`;
requests then come in by Serve's own HTTP, at `/score`, under Serve's own rules: there is no key, no
split and no mirror.
"""

from __future__ import annotations

import sys
from typing import Any

from ray import serve
from ray.serve import Application

from inferay.serve.deployment_file import read_deployment
from inferay.serve.liveness import SERVE_FAILURES
from inferay.serve.replica import EdgeReplica, IngressReplica
from inferay.serve.replica_spec import SERVE_DEPLOYMENT, ApplicationSpec

#: What numerical libraries read when they are loaded, which Ray's own imports do.
_THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
)

#: Between two looks of Serve whether a replica that stops still has requests.
_SHUTDOWN_LOOK_S = 0.5


def build(args: dict[str, Any]) -> Application:
    """Return the application.

    Args:
        args: Either what `ApplicationSpec.to_dict` has as `args`, or `deployment` (a YAML file,
            relative to the working directory) and, where one CPU for a replica is not right,
            `num_cpus`.

    Raises:
        InvalidInput: An argument, or something in the file, is wrong.
    """
    spec = ApplicationSpec.from_args(args) if "spec" in args else read_deployment(args)
    replica: Any = EdgeReplica if spec.spec.edge_url else IngressReplica
    return serve.deployment(**_options(spec))(replica).bind(spec.spec.to_dict())


def _options(spec: ApplicationSpec) -> dict[str, Any]:
    resources, probe = spec.resources, spec.spec.liveness
    actor: dict[str, Any] = {
        "num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus,
    }
    if resources.memory_bytes is not None:
        actor["memory"] = resources.memory_bytes
    runtime: dict[str, Any] = {}
    if resources.threads is not None:
        runtime["env_vars"] = {name: str(resources.threads) for name in _THREADS}
    environment = spec.spec.server.environment
    if environment is not None:   # built on the replica's node, if it is not there
        runtime["py_executable"] = (
            f"{sys.executable} -m inferay.engine.scoring.environments {environment.to_word()}"
        )
    if runtime:
        actor["runtime_env"] = runtime
    return {
        "name": SERVE_DEPLOYMENT, "ray_actor_options": actor, **spec.count,
        # The only replica would stop first, and a constructor be retried 20 times.
        "max_surge_percent": 100, "max_constructor_retry_count": 1,
        "max_ongoing_requests": spec.spec.requests_max,
        "graceful_shutdown_timeout_s": spec.spec.drain_s,
        "graceful_shutdown_wait_loop_s": _SHUTDOWN_LOOK_S,
        "health_check_period_s": probe.period_s,
        # A replica that does not even answer fails as often as its probe allows, all in all.
        "health_check_timeout_s": max(
            probe.timeout_s, probe.period_s * probe.failure_threshold / SERVE_FAILURES
        ),
    }
