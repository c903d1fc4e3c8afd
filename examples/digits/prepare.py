"""Write scikit-learn's handwritten digits as files: `python prepare.py FOLDER`.

The data set has 1,797 images of 8 x 8 pixels with 17 levels of grey. Each becomes a PGM file, which
image viewers open. A random 297 go to `train/`, the other 1,500 to `images/`: those are scored, and
no model has seen them. `labels.csv` has the digit of every file.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TRAIN_COUNT = 297
PGM_HEADER = b"P5\n8 8\n16\n"   # binary grey, 8 x 8, levels 0 to 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    pixels, digits = load_digits(return_X_y=True)
    shuffled = np.random.default_rng(0).permutation(len(digits))
    is_train = np.isin(np.arange(len(digits)), shuffled[:TRAIN_COUNT])
    for part in ("train", "images"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    with open(folder / "labels.csv", "w", newline="") as labels:
        rows = csv.writer(labels)
        rows.writerow(["file", "digit"])
        for number, image in enumerate(pixels.astype(np.uint8)):
            name = f"digit-{number:04d}.pgm"
            part = "train" if is_train[number] else "images"
            (folder / part / name).write_bytes(PGM_HEADER + image.tobytes())
            rows.writerow([name, digits[number]])
    print(f"{len(digits) - TRAIN_COUNT} images to score in {folder / 'images'}, "
          f"{TRAIN_COUNT} to train with in {folder / 'train'}")


if __name__ == "__main__":
    main()
