"""The batch engine: listing, plan, leases, workers, journal, output.

`run(spec)` runs a job in this process's Ray (or on a pool that is handed in) and returns how it
ended. It needs no control plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferay.engine.batch.result import Result
    from inferay.engine.batch.runner import run
    from inferay.engine.batch.spec import JobSpec

__all__ = ["JobSpec", "Result", "run"]

_LAZY = {"JobSpec": "spec", "Result": "result", "run": "runner"}


def __getattr__(name: str) -> Any:
    # Worker processes import this package too, and need neither a driver nor Ray.
    if name not in _LAZY:
        raise AttributeError(f"module 'inferay.engine.batch' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"inferay.engine.batch.{_LAZY[name]}"), name)
