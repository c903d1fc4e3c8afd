"""Train a model on the images in DATA/train: `python train.py DATA MODEL [--c 10]`."""

from __future__ import annotations

import argparse
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--c", type=float, default=1.0,
                        help="scikit-learn's C: the larger, the less regularised (1)")
    options = parser.parse_args()
    labels = pd.read_csv(options.data / "labels.csv", index_col="file")["digit"]
    files = sorted((options.data / "train").glob("*.pgm"))
    pixels = np.stack([np.frombuffer(file.read_bytes()[-64:], np.uint8) / 16 for file in files])
    digits = labels.loc[[file.name for file in files]]
    model = LogisticRegression(C=options.c, max_iter=1000).fit(pixels, digits)
    options.model.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, options.model / "model.joblib")
    print(f"trained on {len(files)} images: {options.model / 'model.joblib'}")


if __name__ == "__main__":
    main()
