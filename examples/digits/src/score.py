"""Says which digit each image shows: a scoring script as Azure ML has it, `init()` and `run()`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

model: Any


def init() -> None:
    """Load the model, once in each worker."""
    global model
    model = joblib.load(Path(os.environ["AZUREML_MODEL_DIR"]) / "model" / "model.joblib")


def run(mini_batch: list[str]) -> pd.DataFrame:
    """Return a row for each image: its name, the digit, and how sure the model is."""
    images = np.stack([read_pixels(path) for path in mini_batch])
    probabilities = model.predict_proba(images)
    return pd.DataFrame({
        "file": [Path(path).name for path in mini_batch],
        "digit": model.classes_[probabilities.argmax(axis=1)],
        "probability": probabilities.max(axis=1).round(4),
    })


def read_pixels(path: str) -> Any:
    """Return the 64 pixels of an 8 x 8 PGM image, from 0 to 1: they are the end of the file."""
    return np.frombuffer(Path(path).read_bytes()[-64:], np.uint8) / 16
