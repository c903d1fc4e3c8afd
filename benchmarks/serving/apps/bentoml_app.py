"""BentoML: a service with a plain endpoint, and one on the event loop."""

from __future__ import annotations

import os
from typing import Any

import bentoml

from benchmarks.serving import models


@bentoml.service(
    workers=int(os.environ.get("WORKERS", "1")), traffic={"timeout": 30},
    metrics={"enabled": False}, logging={"access": {"enabled": False}},
)
class Scorer:
    """The model as a service."""

    def __init__(self) -> None:
        self.model = models.load(os.environ["MODEL"])

    @bentoml.api(route="/score")
    def score(self, data: list[list[float]]) -> dict[str, Any]:
        """Score, in a thread."""
        return self.model({"data": data})

    @bentoml.api(route="/inline")
    async def score_inline(self, data: list[list[float]]) -> dict[str, Any]:
        """Score on the event loop."""
        return self.model({"data": data})
