"""MLServer: a runtime with the model, by the V2 protocol, and by a custom handler."""

from __future__ import annotations

import os

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.handlers import custom_handler
from mlserver.types import InferenceRequest, InferenceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from benchmarks.serving import models


class Scorer(MLModel):
    """The model as an MLServer runtime."""

    async def load(self) -> bool:
        """Load the model."""
        self.model = models.load(os.environ["MODEL"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Score a tensor."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        [values] = self.model({"data": rows}).values()
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("output", np.asarray(values))]
        )

    @custom_handler(rest_path="/score")
    async def score(self, request: Request) -> Response:
        """Score plain JSON, without the protocol."""
        return JSONResponse(self.model(await request.json()))
