"""The models that every server scores with: the same code in all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: A request's JSON, and the answer's.
Model = Callable[[dict[str, Any]], dict[str, Any]]

REQUEST: dict[str, Any] = {"data": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}

ANSWERS: dict[str, dict[str, Any]] = {"echo": REQUEST, "iris": {"labels": [0, 2]}}


def load(name: str) -> Model:
    """Return a model by its name."""
    return {"echo": _echo, "iris": _iris}[name]()


def _echo() -> Model:
    return lambda request: {"data": request["data"]}


def _iris() -> Model:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    found, labels = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(found, labels)
    return lambda request: {"labels": model.predict(request["data"]).tolist()}
