"""How a Triton model repository is laid out: looked at without loading anything."""

from __future__ import annotations

from pathlib import Path

from inferay.errors import InvalidInput

#: The file of a model's folder that configures it.
CONFIG = "config.pbtxt"

#: Which model of a repository `/score` and batch jobs mean, where there are several.
MODEL_VARIABLE = "INFERAY_TRITON_MODEL"


def check_repository(folder: Path) -> None:
    """Check that a folder is laid out as a repository.

    Raises:
        InvalidInput: It is not.
    """
    if folder.is_dir() and ((folder / CONFIG).is_file() or versions_in(folder)):
        raise InvalidInput(
            f"model: {folder} is one model of a Triton repository; give the folder that it is in",
            code="NoRepository", target="model",
        )
    if not folder.is_dir() or not any(versions_in(one) for one in models_in(folder)):
        raise InvalidInput(
            f"model: {folder} is no Triton model repository: expected MODEL/VERSION/model.onnx or "
            f"MODEL/VERSION/model.py, and MODEL/{CONFIG}", code="NoRepository", target="model",
        )


def models_in(folder: Path) -> list[Path]:
    """Return the folders of models."""
    return [one for one in folder.iterdir() if one.is_dir() and not one.name.startswith(".")]


def versions_in(model: Path) -> dict[int, str]:
    """Return the names of the folders of versions by their numbers, which rise."""
    found = {
        int(one.name): one.name for one in model.iterdir()
        if one.is_dir() and one.name.isdecimal() and int(one.name) > 0
    }
    return dict(sorted(found.items()))
