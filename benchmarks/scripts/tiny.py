"""Reads a tiny file: what is measured is all that happens around it."""

import os


def init():
    pass


def run(mini_batch):
    rows = []
    for path in mini_batch:
        with open(path) as file:
            rows.append(f"{os.path.basename(path)} {len(file.read())}")
    return rows
