"""Says numbers in words, and which version of the package does so."""

from __future__ import annotations

import json
from importlib.metadata import version

import humanize


def init() -> None:
    """Nothing is to be loaded."""


def run(data: str | list[str]) -> object:
    """Take a JSON list online, and paths of such files in batch."""
    if isinstance(data, str):
        return {"humanize": version("humanize"), "said": words(json.loads(data))}
    rows = []
    for path in data:
        with open(path) as file:
            rows.append([version("humanize"), *words(json.load(file))])
    return rows


def words(numbers: list[float]) -> list[str]:
    """Return each number in words."""
    return [humanize.intword(number) for number in numbers]
