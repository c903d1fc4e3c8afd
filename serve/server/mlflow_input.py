"""What a request asks an MLflow model: Azure's `input_data` and the forms of MLflow's own server.

Columns are made with the types of the model's signature, and a value that is of another type is
refused: nothing is rounded, cut or read out of a text.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy
import pandas

from inferay.engine.scoring.mlflow_model import MlflowModel, type_name
from inferay.errors import InvalidInput, nearest
from inferay.serve.server.http import Refused, Request

#: Keys of a body, one of which holds the data.
FORMS = ("input_data", "inputs", "instances", "dataframe_split", "dataframe_records")

_SPLIT = frozenset(("columns", "index", "data"))

_FLOATS = {"double": "float64", "float": "float32"}
_INTEGERS = {"long": "int64", "integer": "int32"}


def data_of(request: Request, model: MlflowModel) -> tuple[Any, Mapping[str, Any] | None]:
    """Return what the model is asked, and its parameters, if there are any.

    Raises:
        Refused: The request holds nothing that fits the model's signature (400), or is no POST.
    """
    if request.method != "POST":
        raise Refused(405, "Method not allowed")
    kind = (request.header(b"content-type") or "").partition(";")[0].strip().lower()
    try:
        if kind == "text/csv":
            return _from_csv(request.body, model), None
        return _from_json(request.body, model)
    except InvalidInput as error:
        raise Refused(400, error.message) from None
    except OverflowError as error:   # JSON knows numbers of any size
        raise Refused(400, model.mismatch(f"a number is too large: {error}").message) from None


def _from_csv(body: bytes, model: MlflowModel) -> Any:
    try:
        frame = pandas.read_csv(io.BytesIO(body), dtype=model.column_types)
    except ValueError as error:   # ParserError, EmptyDataError and UnicodeDecodeError too
        raise model.mismatch(f"the body cannot be read as CSV: {error}") from None
    return model.frame_input(frame)


def _from_json(body: bytes, model: MlflowModel) -> tuple[Any, Mapping[str, Any] | None]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:   # UnicodeDecodeError too
        said = "it is empty" if not body else str(error)
        raise model.mismatch(f"the body is no JSON: {said}") from None
    forms = [name for name in FORMS if name in found] if isinstance(found, dict) else []
    if len(forms) != 1:
        raise model.mismatch(
            f"the body has to be a JSON object with one of {', '.join(FORMS)}, and params if any"
        )
    form, = forms
    for name in found:
        if name not in (form, "params"):
            raise model.mismatch(f"the body has '{name[:100]}' beside '{form}'")
    return _data(form, found[form], model), _params(found.get("params"), model)


def _params(given: Any, model: MlflowModel) -> Mapping[str, Any] | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise model.mismatch("params: expected an object")
    known = [one.name for one in model.params]
    for name in given:
        if name not in known:
            raise model.mismatch(f"unknown parameter '{name[:100]}'{nearest(name, known)}")
    return given or None


def _data(form: str, value: Any, model: MlflowModel) -> Any:
    """Return the data of one form as the model takes it."""
    if form == "dataframe_split" or (form == "input_data" and _is_split(value, model)):
        return _split(form, value, model)
    if form == "dataframe_records":
        if not _are_records(value):
            raise model.mismatch(f"{form}: expected a list of objects")
        return _records(value, model)
    if form != "inputs" and _are_records(value):
        return _records(value, model)
    if model.is_list or (form == "inputs" and _are_records(value)):
        return value if model.is_list else _records(value, model)
    if isinstance(value, dict):
        return _named(form, value, model)
    if not isinstance(value, list):
        value = [value]
    return _listed(form, value, model)


def _is_split(value: Any, model: MlflowModel) -> bool:
    if not isinstance(value, dict) or "data" not in value or not value.keys() <= _SPLIT:
        return False
    return not model.names or not value.keys() <= set(model.names)


def _are_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _split(form: str, value: Any, model: MlflowModel) -> Any:
    if not isinstance(value, dict) or "data" not in value or not value.keys() <= _SPLIT:
        raise model.mismatch(f"{form}: expected an object with columns, index and data")
    rows, names, index = value["data"], value.get("columns"), value.get("index")
    if not isinstance(rows, list):
        raise model.mismatch(f"{form}: data: expected a list of rows")
    if not rows:
        raise model.mismatch(f"{form}: it has no rows")
    rows = [row if isinstance(row, list) else [row] for row in rows]
    width = len(rows[0])
    if index is not None and not _is_index(index, len(rows)):
        raise model.mismatch(f"{form}: index: expected a list of {len(rows)} numbers or texts")
    if names is None and model.names and not model.is_tensor:
        if width != len(model.names):
            raise model.mismatch(
                f"{form}: rows of {width} values without columns; expected {len(model.names)}"
            )
        names = model.names
    if names is not None and not isinstance(names, list):
        raise model.mismatch(f"{form}: columns: expected a list of names")
    for at, row in enumerate(rows):
        if len(row) != (width if names is None else len(names)):
            raise model.mismatch(
                f"{form}: row {at} has {len(row)} values for "
                f"{width if names is None else len(names)} columns"
            )
    return _frame(names if names is not None else list(range(width)), rows, index, model)


def _is_index(index: Any, length: int) -> bool:
    is_list = isinstance(index, list) and len(index) == length
    return is_list and set(map(type, index)) <= {int, float, str, type(None)}


def _records(value: list[dict[str, Any]], model: MlflowModel) -> Any:
    names = list(dict.fromkeys(chain.from_iterable(value)))
    return _frame(names, [[row.get(name) for name in names] for row in value], None, model)


def _frame(names: list[Any], rows: list[list[Any]], index: Any, model: MlflowModel) -> Any:
    """Return rows as a table of the signature's types, or as its one tensor."""
    if model.is_tensor or not model.inputs:
        try:
            frame = pandas.DataFrame(rows, columns=names, index=index)
        except (ValueError, TypeError) as error:   # of names that are none
            raise model.mismatch(f"no table: {error}") from None
        return model.frame_input(frame)
    if not model.names:
        return _positional(rows, index, model)
    _check_names(names, model)
    kinds = {type_name(model.by_name[name]) for name in names}
    if len(kinds) == 1 and (dtype := _FLOATS.get(*kinds)) and _are_numbers(rows):
        # By far the most common: all at once, and as one block of memory.
        values = numpy.array(rows, dtype)
        if names == model.names and (index is None or index == list(range(len(rows)))):
            return model.table(values)
        return pandas.DataFrame(values, columns=names, index=index)
    columns = list(zip(*rows, strict=True))
    given = dict(zip(names, columns, strict=True))
    return pandas.DataFrame({
        name: _column(name, given[name], spec, model)
        for name, spec in model.by_name.items() if name in given
    }, index=index)


def _are_numbers(rows: list[list[Any]]) -> bool:
    return set(map(type, chain.from_iterable(rows))) <= {int, float}


def _positional(rows: list[list[Any]], index: Any, model: MlflowModel) -> pandas.DataFrame:
    """Return rows of a signature whose columns have no names."""
    if len(rows[0]) != len(model.inputs):
        raise model.mismatch(f"a row has {len(rows[0])} values for {len(model.inputs)} columns")
    columns = list(zip(*rows, strict=True))
    return pandas.DataFrame({
        at: _column(at, values, spec, model)
        for at, (spec, values) in enumerate(zip(model.inputs, columns, strict=True))
    }, index=index)


def _check_names(names: Sequence[Any], model: MlflowModel) -> None:
    """Check that the names are those of the signature, whatever their order."""
    given = set()
    for name in names:
        if not isinstance(name, str) or name not in model.by_name:
            raise model.mismatch(
                f"unknown input '{str(name)[:100]}'{nearest(str(name), model.names)}"
            )
        if name in given:
            raise model.mismatch(f"input '{name}' is given twice")
        given.add(name)
    missing = [
        one.name for one in model.inputs
        if one.name not in given and getattr(one, "required", True)
    ]
    if missing:
        shown = ", ".join(f"'{name}'" for name in missing[:10])
        raise model.mismatch(f"missing input {shown}{' …' if len(missing) > 10 else ''}")


def _column(name: Any, values: Sequence[Any], spec: Any, model: MlflowModel) -> Any:
    """Return one column's values in the signature's type."""
    kind = type_name(spec)
    types = set(map(type, values))
    refused = _refusing(name, values, kind, model)
    if kind in _FLOATS:
        refused(lambda value: value is None or type(value) in (int, float))
        return numpy.array(
            [numpy.nan if value is None else value for value in values], _FLOATS[kind]
        )
    if kind in _INTEGERS:
        bounds = numpy.iinfo(_INTEGERS[kind])
        refused(lambda value: (
            (type(value) is int or (type(value) is float and value.is_integer()))
            and bounds.min <= value <= bounds.max
        ))
        return numpy.array(values, _INTEGERS[kind])
    if kind == "boolean":
        refused(lambda value: value is None or type(value) is bool)
        return numpy.array(values, object if type(None) in types else bool)
    if kind == "string":
        refused(lambda value: value is None or type(value) is str)
        return pandas.Series(list(values), dtype=object)
    if kind == "datetime":
        try:
            return pandas.to_datetime(pandas.Series(list(values))).astype("datetime64[ns]")
        except (ValueError, TypeError) as error:
            raise model.mismatch(f"input '{name}': {error}") from None
    if kind == "binary":
        refused(lambda value: type(value) is str)
        try:
            found = [base64.b64decode(value, validate=True) for value in values]
        except (binascii.Error, ValueError) as error:
            raise model.mismatch(f"input '{name}': no base64: {error}") from None
        return pandas.Series(found, dtype=object)
    return pandas.Series(list(values), dtype=object)   # lists and objects: MLflow looks at them


def _refusing(
    name: Any, values: Sequence[Any], kind: str, model: MlflowModel
) -> Callable[[Callable[[Any], bool]], None]:
    def refuse(is_right: Callable[[Any], bool]) -> None:
        for at, value in enumerate(values):
            if not is_right(value):
                shown = json.dumps(value)
                shown = shown if len(shown) <= 100 else f"{shown[:100]} …"
                raise model.mismatch(f"input '{name}', row {at}: {shown} is no {kind}")

    return refuse


def _named(form: str, value: dict[str, Any], model: MlflowModel) -> Any:
    """Return inputs that are given by their names: columns, or tensors."""
    if not model.inputs:
        return {name: _array(f"input '{name}'", one, model) for name, one in value.items()}
    if not model.names:
        raise model.mismatch(f"{form}: the inputs have no names; expected a list")
    _check_names(list(value), model)
    if model.is_tensor:
        return {
            name: _tensor(f"input '{name}'", one, model.by_name[name], model)
            for name, one in value.items()
        }
    is_one = not any(isinstance(one, list) for one in value.values())
    columns = {name: [one] if is_one else one for name, one in value.items()}
    lengths = {len(one) for one in columns.values() if isinstance(one, list)}
    if len(lengths) != 1 or not all(isinstance(one, list) for one in columns.values()):
        raise model.mismatch(f"{form}: expected lists of equal length")
    return pandas.DataFrame({
        name: _column(name, one, model.by_name[name], model) for name, one in columns.items()
    })


def _listed(form: str, value: list[Any], model: MlflowModel) -> Any:
    """Return a list: the rows of a table, or a tensor."""
    if not model.inputs:
        return _array(form, value, model)
    if model.is_tensor:
        if len(model.inputs) != 1:
            raise model.mismatch(f"{form}: expected an object with an array for each input")
        found = _tensor(form, value, model.inputs[0], model)
        name = model.inputs[0].name
        return found if name is None else {name: found}
    return _split(form, {"data": value}, model)


def _tensor(what: str, value: Any, spec: Any, model: MlflowModel) -> Any:
    found = _array(what, value, model)
    if spec.type.kind in "biuf" and found.dtype.kind not in "biuf":
        raise model.mismatch(f"{what}: values of {found.dtype} are no {spec.type}")
    if found.ndim != len(spec.shape):
        raise model.mismatch(
            f"{what}: an array of shape {found.shape} for one of {tuple(spec.shape)}"
        )
    for size, wanted in zip(found.shape, spec.shape, strict=True):
        if wanted not in (-1, size):
            raise model.mismatch(
                f"{what}: an array of shape {found.shape} for one of {tuple(spec.shape)}"
            )
    return model.cast(found, spec)


def _array(what: str, value: Any, model: MlflowModel) -> Any:
    try:
        return numpy.array(value)
    except ValueError as error:   # rows of different lengths
        raise model.mismatch(f"{what}: {error}") from None
