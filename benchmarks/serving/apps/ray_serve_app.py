"""Plain Ray Serve: one deployment that answers HTTP itself. Arguments: port, replicas."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from benchmarks.serving import models


@serve.deployment(max_ongoing_requests=128)
class Scorer:
    """The model as a deployment."""

    def __init__(self) -> None:
        self.model = models.load(os.environ["MODEL"])

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Score on the replica's event loop."""
        return self.model(await request.json())


if __name__ == "__main__":
    port, replicas = (int(one) for one in sys.argv[1:])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployed: Any = Scorer
    options = {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0.5}}
    serve.run(deployed.options(**options).bind(), route_prefix="/score")
    has_ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: has_ended.set())
    has_ended.wait()
    serve.shutdown()
    ray.shutdown()
