"""Stand-ins for the azureml names that scoring scripts import, where they are not installed.

Azure's own inference server puts its modules under these names too.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

#: Where scripts import `rawhttp`, `AMLRequest` and `AMLResponse` from.
_RAW_HTTP = (
    "azureml.contrib.services.aml_request", "azureml.contrib.services.aml_response",
    "azureml_inference_server_http.api.aml_request",
    "azureml_inference_server_http.api.aml_response",
)
_RAW_HTTP_NAMES = ("AMLRequest", "AMLResponse", "rawhttp")


class Model:
    """`azureml.core.model.Model`, as far as scoring scripts use it."""

    @staticmethod
    def get_model_path(model_name: str, version: int | None = None) -> str:
        """Return the path of the deployment's one model.

        Raises:
            FileNotFoundError: The deployment has no model.
        """
        folder = os.environ.get("AZUREML_MODEL_DIR", "")
        names = sorted(os.listdir(folder)) if folder else []
        if not names:
            raise FileNotFoundError(f"no model '{model_name}': the deployment has none")
        name = model_name if model_name in names else names[0]
        return os.path.join(folder, name)


def install_aliases() -> None:
    """Make the imports of scoring scripts work; what is installed stays as it is.

    `azureml.contrib.services` is ours even then, as on Azure: its real package speaks to a server
    that is not there.
    """
    if not _is_there("azureml"):
        core = _stand_in("azureml.core")
        model = _stand_in("azureml.core.model")
        model.Model = core.Model = Model   # type: ignore[attr-defined]
    for name in _RAW_HTTP:
        _stand_in(name).__getattr__ = _raw_http   # type: ignore[method-assign]


def _raw_http(name: str) -> Any:
    """Return a name of `raw_http`, which is imported when a script asks for it."""
    if name not in _RAW_HTTP_NAMES:
        raise AttributeError(name)
    return getattr(importlib.import_module("inferay.engine.scoring.raw_http"), name)


def _stand_in(name: str) -> ModuleType:
    """Put a module in the place of `name`, and packages above it where there are none."""
    module = ModuleType(name)
    sys.modules[name] = module
    above, _, last = name.rpartition(".")
    if above:
        package = importlib.import_module(above) if _is_there(above) else _stand_in(above)
        if not hasattr(package, "__path__"):   # a stand-in of ours
            package.__path__ = []
        setattr(package, last, module)
    return module


def _is_there(name: str) -> bool:
    if name in sys.modules:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):   # a stand-in of ours has no spec
        return False
