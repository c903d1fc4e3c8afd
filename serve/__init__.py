"""Online endpoints: what answers requests, and what stands in front of it.

server        the inference server: one ASGI app over a scoring script
guard         the same app behind the edge: who may call it, and what is marked for mirroring
registration  how a replica enters and leaves the edge
replica       a replica on Ray Serve; `app` builds its application, `autoscaling` says how many
routing       which requests reach which replicas; the edge carries it out
mirror        copies of live requests to other deployments
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferay.serve.app import build

__all__ = ["build"]


def __getattr__(name: str) -> Any:
    # The inference server as a plain process needs no Ray.
    if name != "build":
        raise AttributeError(f"module 'inferay.serve' has no attribute '{name}'")
    from inferay.serve.app import build

    return build
