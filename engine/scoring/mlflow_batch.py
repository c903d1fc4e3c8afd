"""An MLflow model in a batch deployment without code: tables and images in, a prediction a row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferay.engine.scoring.mlflow_model import MlflowModel
from inferay.errors import UserCodeError

if TYPE_CHECKING:
    import pandas

#: The one column of what `run` returns.
PREDICTION = "prediction"


class MlflowBatch:
    """Scores tables and images with a model folder; `init` loads it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._model: MlflowModel | None = None

    @property
    def column_types(self) -> Mapping[str, str]:
        """The dtypes of columns that are read from text; `init` has to be done."""
        return self._loaded.column_types

    def init(self) -> None:
        """Load the model; blocks.

        Raises:
            UserCodeError: It cannot be loaded, or a package that it needs is missing.
        """
        self._model = MlflowModel(self._folder)

    def run(self, batch: Any) -> pandas.DataFrame:
        """Return a prediction for each row of a table, or for the one image of an array.

        Raises:
            InvalidInput: The input does not fit the model's signature.
            UserCodeError: There are more or fewer predictions than rows.
            Exception: What the model raises.
        """
        import pandas

        model = self._loaded
        if isinstance(batch, pandas.DataFrame):
            return predictions(model.predict(model.frame_input(batch)), len(batch))
        is_one = model.is_tensor and len(model.inputs) == 1
        data = model.as_tensor(batch, model.inputs[0]) if is_one else batch
        return predictions(model.predict(data), 1)

    def shutdown(self) -> None:
        """Nothing is to be done."""

    @property
    def _loaded(self) -> MlflowModel:
        assert self._model is not None, "init() was not called"
        return self._model


def predictions(result: Any, rows: int) -> pandas.DataFrame:
    """Return what a model predicted as a table with one row for each of the input's.

    A row of several outputs is a list, or a dict where they have names. Numbers are doubles, so
    that each format writes the same value.

    Raises:
        UserCodeError: There are more or fewer predictions than rows.
    """
    import pandas

    values = _values(result)
    if values is None or len(values) != rows:
        if rows != 1:
            many = "one value" if values is None else f"{len(values)} predictions"
            raise UserCodeError(
                f"the model returned {many} for {rows} rows; it has to return one for each",
                code="PredictionsMismatch",
            )
        values = [result if values is None else list(values)]
    if isinstance(values, list) or values.dtype.kind == "O":
        return pandas.DataFrame({PREDICTION: pandas.Series(list(values), dtype=object)})
    return pandas.DataFrame({PREDICTION: values})


def _values(result: Any) -> Any:
    """Return one value for each row, as an array or a list; None if the result is one value."""
    import numpy
    import pandas

    if isinstance(result, pandas.DataFrame):
        if result.shape[1] == 1:
            return _values(result.iloc[:, 0])
        return result.to_dict(orient="records")
    if isinstance(result, pandas.Series):
        is_plain = isinstance(result.dtype, numpy.dtype)
        return _values(result.to_numpy()) if is_plain else result.tolist()
    if hasattr(result, "toarray"):   # scipy's sparse matrices
        result = result.toarray()
    if isinstance(result, numpy.ndarray):
        if result.ndim != 1:
            return result.tolist() if result.ndim else None
        return result.astype(float) if result.dtype.kind == "f" else result
    if isinstance(result, dict):
        columns = {str(name): _values(value) for name, value in result.items()}
        if any(value is None for value in columns.values()):
            return None
        plain = [
            value.tolist() if isinstance(value, numpy.ndarray) else value
            for value in columns.values()
        ]
        if len({len(value) for value in plain}) != 1:
            return None
        return [dict(zip(columns, row, strict=True)) for row in zip(*plain, strict=True)]
    return list(result) if isinstance(result, (list, tuple)) else None
