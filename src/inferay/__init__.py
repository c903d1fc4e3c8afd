"""Inference endpoints on Ray with Azure Machine Learning's semantics.

`Client` and the entity classes load on first use, so that a worker process, which imports
`inferay.engine` alone, pays for nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from inferay.client import Client, Job
    from inferay.engine.resources import (
        BatchDeployment,
        BatchEndpoint,
        Compute,
        Data,
        Datastore,
        Environment,
        Model,
        OnlineDeployment,
        OnlineEndpoint,
    )

_LAZY = {
    "Client": "inferay.client",
    "Job": "inferay.client",
    "BatchDeployment": "inferay.engine.resources",
    "BatchEndpoint": "inferay.engine.resources",
    "Compute": "inferay.engine.resources",
    "Data": "inferay.engine.resources",
    "Datastore": "inferay.engine.resources",
    "Environment": "inferay.engine.resources",
    "Model": "inferay.engine.resources",
    "OnlineDeployment": "inferay.engine.resources",
    "OnlineEndpoint": "inferay.engine.resources",
}

__all__ = [
    "BatchDeployment",
    "BatchEndpoint",
    "Client",
    "Compute",
    "Data",
    "Datastore",
    "Environment",
    "Job",
    "Model",
    "OnlineDeployment",
    "OnlineEndpoint",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'inferay' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
