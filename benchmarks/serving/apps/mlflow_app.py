"""MLflow: saves the model to the folder that is named, for `mlflow models serve`."""

from __future__ import annotations

import os
import sys
from typing import Any

import mlflow

from benchmarks.serving import models


class Scorer(mlflow.pyfunc.PythonModel):
    """The model as a pyfunc."""

    def load_context(self, context: Any) -> None:
        """Load the model."""
        self.model = models.load(os.environ["MODEL"])

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """Score."""
        [values] = self.model({"data": model_input}).values()
        return values


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=Scorer())
