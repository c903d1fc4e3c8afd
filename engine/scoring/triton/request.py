"""What a model is asked, as its backend is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class InferRequest:
    """A request.

    Attributes:
        inputs: Arrays by name, as the model itself takes them.
        outputs: The names of those that are wanted.
        id: The client's name for it.
        parameters: The client's own.
    """

    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
