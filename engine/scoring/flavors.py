"""Which models are scored without a script of the user's, and what their folders must hold."""

from __future__ import annotations

from pathlib import Path

from inferay.errors import InvalidInput

#: The flavour of each type of model that brings what it takes to score it.
FLAVORS = {"mlflow_model": "mlflow"}

#: Of the error about a table without a column that the model needs: no row of its file has it.
COLUMNS_MISSING = "ColumnsMissing"

#: The file that says of an MLflow model how it is loaded.
MLMODEL = "MLmodel"


def flavor_of(model_type: str | None, *, has_code: bool) -> str:
    """Return how a deployment scores: by the flavour of its model, or "" by its script."""
    return "" if has_code or model_type is None else FLAVORS.get(model_type, "")


def check_model(flavor: str, model: Path) -> None:
    """Check that a folder is a model of the flavour.

    Raises:
        InvalidInput: It is not.
    """
    if flavor == "mlflow" and not (model / MLMODEL).is_file():
        raise InvalidInput(
            f"model: {model} is no MLflow model: it has no file {MLMODEL}; give the folder that "
            "MLflow's save_model or log_model wrote, or a code_configuration with a scoring script",
            code="NoMLmodel", target="model",
        )
