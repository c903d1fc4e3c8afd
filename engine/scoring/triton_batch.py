"""A Triton model repository in a batch deployment without code: tables in, a prediction a row.

A column is the input of its name. A model with one input, a row of which is a vector, may have a
column for each of its elements instead.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferay.engine.scoring.flavors import COLUMNS_MISSING
from inferay.engine.scoring.mlflow_batch import PREDICTION
from inferay.errors import InvalidInput, UserCodeError

if TYPE_CHECKING:
    import pandas

    from inferay.engine.scoring.triton.config import Tensor
    from inferay.engine.scoring.triton.model import TritonModel
    from inferay.engine.scoring.triton.repository import Repository

#: Rows of one call of a model that has no `max_batch_size` of its own: each row is a request.
_SINGLE = 1


class TritonBatch:
    """Scores tables with one model of a repository; `init` loads it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._repository: Repository | None = None
        self._model: TritonModel | None = None

    @property
    def column_types(self) -> Mapping[str, str]:
        """The dtypes of columns that are read from text; `init` has to be done."""
        return {one.name: "str" for one in self._loaded.config.inputs if one.datatype == "BYTES"}

    def init(self) -> None:
        """Load the models; blocks.

        Raises:
            InvalidInput: The folder is no repository, or has several models and none is chosen.
            UserCodeError: A model cannot be loaded.
        """
        from inferay.engine.scoring.triton.layout import MODEL_VARIABLE
        from inferay.engine.scoring.triton.repository import Repository

        self._repository = Repository(self._folder)
        self._model = self._repository.only(os.environ.get(MODEL_VARIABLE, ""))

    def run(self, batch: Any) -> pandas.DataFrame:
        """Return a prediction for each row of a table.

        Raises:
            InvalidInput: The table does not fit the model's inputs.
            ModelError: The model says that it failed.
            Exception: What the model raises.
        """
        import pandas

        model = self._loaded
        rows_max = model.config.rows_max or _SINGLE
        inputs = {
            one.name: values for one in model.config.inputs
            if (values := _input(model, one, batch)) is not None
        }
        found: list[Any] = []
        for first in range(0, len(batch), rows_max):
            part = {name: values[first:first + rows_max] for name, values in inputs.items()}
            if not model.config.rows_max:
                part = {name: values[0] for name, values in part.items()}
            rows = min(rows_max, len(batch) - first)
            try:
                outputs = model.infer(part)
            except InvalidInput as error:
                raise InvalidInput(
                    error.message, code="SignatureMismatch", target=error.target
                ) from None
            found += _rows(model, outputs, rows)
        return pandas.DataFrame({PREDICTION: _column(found)})

    def shutdown(self) -> None:
        """End the models."""
        if self._repository is not None:
            self._repository.close()

    @property
    def _loaded(self) -> TritonModel:
        assert self._model is not None, "init() was not called"
        return self._model


def _input(model: TritonModel, spec: Tensor, table: pandas.DataFrame) -> Any:
    """Return an input's values for all rows, or None for one that may be left out.

    Raises:
        InvalidInput: The table has no such column, or its values do not fit.
    """
    if spec.name in table.columns:
        values = table[spec.name].tolist()
        if not _is_scalar(spec):
            values = [_listed(spec, one) for one in values]
    elif len(model.config.inputs) == 1 and len(spec.dims) == 1 and (
        spec.dims[0] in (-1, table.shape[1])
    ):
        values = table.to_numpy().tolist()
    elif spec.is_optional:
        return None
    else:
        raise InvalidInput(
            f"the table has no column '{spec.name}'; the model {model.name} expects "
            f"{model.expected}", code=COLUMNS_MISSING, target=spec.name,
        )
    return _array(model, spec, values)


def _array(model: TritonModel, spec: Tensor, values: list[Any]) -> Any:
    from inferay.engine.scoring.triton.tensors import from_values

    try:
        array = from_values(spec.name, values, spec.datatype)
        wanted = [size if size >= 0 else -1 for size in spec.dims]
        return array.reshape([len(values), *wanted]) if _is_scalar(spec) else array
    except (InvalidInput, ValueError) as error:
        said = error.message if isinstance(error, InvalidInput) else str(error)
        raise InvalidInput(
            f"{said}; the model {model.name} expects {model.expected}", code="SignatureMismatch",
            target=spec.name,
        ) from None


def _is_scalar(spec: Tensor) -> bool:
    """Return whether a row of the input is one value."""
    return all(size == 1 for size in spec.dims)


def _listed(spec: Tensor, value: Any) -> Any:
    """Return a row's value as nested lists; a text is JSON."""
    import json

    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError as error:
            raise InvalidInput(
                f"input '{spec.name}': a text that is no JSON list: {error}",
                code="SignatureMismatch", target=spec.name,
            ) from None
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return lists for arrays, which Parquet nests."""
    found = value.tolist() if hasattr(value, "tolist") else value
    return [_plain(one) for one in found] if isinstance(found, list) else found


def _rows(model: TritonModel, outputs: Mapping[str, Any], rows: int) -> list[Any]:
    """Return each row's prediction: the one output's, or all of them by their names.

    Raises:
        UserCodeError: There are more or fewer than rows.
    """
    columns = {}
    for name, array in outputs.items():
        if model.config.rows_max and len(array) != rows:
            raise UserCodeError(
                f"the model {model.name} returned {len(array)} rows of '{name}' for {rows}; it "
                "has to return one for each", code="PredictionsMismatch",
            )
        columns[name] = [_value(one) for one in (array if model.config.rows_max else [array])]
    if not columns:
        raise UserCodeError(
            f"the model {model.name} returned no outputs", code="PredictionsMismatch"
        )
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _value(array: Any) -> Any:
    """Return one number or text, or the nested lists of more."""
    import numpy

    found = numpy.asarray(array)
    if found.dtype.kind == "O":
        texts = [_text(one) for one in found.ravel()]
        return texts[0] if found.size == 1 else numpy.array(texts, object).reshape(
            found.shape).tolist()
    return found.ravel()[0].item() if found.size == 1 else found.tolist()


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _column(values: list[Any]) -> Any:
    import pandas

    if all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in values):
        return pandas.Series(values)
    return pandas.Series(values, dtype=object)
