"""MLServer: an ONNX file in a runtime of its own."""

from __future__ import annotations

import os

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Onnx(MLModel):
    """A session of ONNX Runtime."""

    async def load(self) -> bool:
        """Load the file."""
        self.session = onnxruntime.InferenceSession(os.environ["MODEL_FILE"])
        self.names = [one.name for one in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the model."""
        feeds = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        found = self.session.run(None, feeds)
        return InferenceResponse(model_name=self.name, outputs=[
            NumpyCodec.encode_output(name, array)
            for name, array in zip(self.names, found, strict=True)
        ])
