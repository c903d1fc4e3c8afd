"""Which models are scored without a script of the user's, and what their folders must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inferay.errors import InvalidInput

#: The flavour of each type of model that brings what it takes to score it.
FLAVORS = {"mlflow_model": "mlflow", "triton_model": "triton"}

#: Of the error about a table without a column that the model needs: no row of its file has it.
COLUMNS_MISSING = "ColumnsMissing"

#: The file that says of an MLflow model how it is loaded.
MLMODEL = "MLmodel"


def flavor_of(model_type: str | None, *, has_code: bool) -> str:
    """Return how a deployment scores: by the flavour of its model, or "" by its script."""
    return "" if has_code or model_type is None else FLAVORS.get(model_type, "")


def flavors_of(model: Path) -> dict[str, Any]:
    """Return the flavours that an MLflow model's file names.

    Raises:
        InvalidInput: The file is none of MLflow's.
    """
    import yaml

    try:
        found = yaml.safe_load((model / MLMODEL).read_text())
        flavors = found["flavors"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        said = str(error).splitlines()[0]
        raise InvalidInput(
            f"model: {model.name}/{MLMODEL} cannot be read ({type(error).__name__}: {said}); it "
            "may be truncated: save the model again", code="BadMLmodel", target="model",
        ) from error
    return {str(name): dict(facts or {}) for name, facts in flavors.items()}


def check_model(flavor: str, model: Path) -> None:
    """Check that a folder is a model of the flavour.

    Raises:
        InvalidInput: It is not.
    """
    if flavor == "triton":
        from inferay.engine.scoring.triton.layout import check_repository

        check_repository(model)
    if flavor == "mlflow" and not (model / MLMODEL).is_file():
        raise InvalidInput(
            f"model: {model} is no MLflow model: it has no file {MLMODEL}; give the folder that "
            "MLflow's save_model or log_model wrote, or a code_configuration with a scoring script",
            code="NoMLmodel", target="model",
        )
