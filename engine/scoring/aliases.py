"""Stand-ins for the few azureml-core names that scoring scripts import, where it is not installed.

Azure's own inference server puts its modules under these names too.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType


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
    """Make `from azureml.core.model import Model` work; does nothing where azureml is installed."""
    if "azureml" in sys.modules or importlib.util.find_spec("azureml") is not None:
        return
    names = ("azureml", "azureml.core", "azureml.core.model")
    azureml, core, model = map(ModuleType, names)
    azureml.__path__, core.__path__ = [], []
    model.Model = core.Model = Model   # type: ignore[attr-defined]
    azureml.core, core.model = core, model   # type: ignore[attr-defined]
    sys.modules.update({m.__name__: m for m in (azureml, core, model)})
