"""Bare FastAPI: a plain endpoint, which FastAPI calls in its threads; `MODEL` names the model."""

from __future__ import annotations

import os
from typing import Any

from fastapi import Body, FastAPI, Request

from benchmarks.serving import models

app = FastAPI()
model = models.load(os.environ["MODEL"])


@app.post("/score")
def score(request: dict[str, Any] = Body()) -> dict[str, Any]:   # noqa: B008 - FastAPI's way
    """Answer as the model does."""
    return model(request)


@app.post("/inline")
async def score_inline(request: dict[str, Any] = Body()) -> dict[str, Any]:   # noqa: B008
    """Answer from the event loop: while the model works, nothing else is answered."""
    return model(request)


@app.post("/size")
async def size(request: Request) -> int:
    """Answer how many characters were sent."""
    return len((await request.body()).decode())
