"""Says which digit each image shows: a scoring script as Azure ML has it, `init()` and `run()`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np

model: Any


def init() -> None:
    """Load the model, once in each instance."""
    global model
    folder = Path(os.environ["AZUREML_MODEL_DIR"])
    model = joblib.load(next(folder.rglob("model.joblib")))


def run(raw_data: str) -> list[dict[str, Any]]:
    """Return a digit, and how sure the model is, for each image: 64 levels of grey, 0 to 16."""
    images = np.array(json.loads(raw_data)["images"], dtype=float).reshape(-1, 64) / 16
    probabilities = model.predict_proba(images)
    return [
        {"digit": int(model.classes_[row.argmax()]), "probability": round(float(row.max()), 4)}
        for row in probabilities
    ]
