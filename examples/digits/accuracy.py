"""Compare predictions with the labels: `python accuracy.py PREDICTIONS LABELS`."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("labels", type=Path)
    options = parser.parse_args()
    predictions = pd.read_csv(
        options.predictions, sep=" ", header=None, names=["file", "digit", "probability"]
    )
    labels = pd.read_csv(options.labels, index_col="file")["digit"]
    is_right = predictions["digit"].to_numpy() == labels.loc[predictions["file"]].to_numpy()
    print(f"accuracy {is_right.mean():.1%}: {is_right.sum()} of {len(is_right)} digits are right "
          "(the model was trained on none of these images)")


if __name__ == "__main__":
    main()
