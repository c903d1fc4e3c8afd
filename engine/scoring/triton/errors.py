"""How a model of a repository is named in an error."""

from __future__ import annotations

from pathlib import Path

from inferay.errors import InvalidInput


class ModelError(Exception):
    """Raised when a model says that it failed: a Python model's `TritonError`.

    Attributes:
        code: By Triton's name, such as `INVALID_ARG`.
    """

    def __init__(self, message: str, code: str = "INTERNAL") -> None:
        super().__init__(message)
        self.code = code


def refusal(folder: Path, said: str, code: str = "BadModel") -> InvalidInput:
    """Return the error about a model that cannot be served."""
    return InvalidInput(f"the Triton model {folder.name}: {said}", code=code, target="model")
