"""An MLflow model as a `pyfunc`: loaded once, its signature told and enforced.

Only MLflow's public names are used, for a deployment's environment may have another version of it.
`mlflow` itself is imported when a model is loaded, in the process that scores.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferay.engine.scoring.flavors import COLUMNS_MISSING
from inferay.engine.scoring.tracebacks import describe_exception, user_traceback
from inferay.errors import InvalidInput, UserCodeError, nearest

if TYPE_CHECKING:
    import numpy
    import pandas

#: Missing columns that an error names; of more the number is said.
NAMED_MAX = 10

#: Inputs that an error names; of more the number is said.
SHOWN_MAX = 50

#: Of a reason that holds the data itself, at most this much is kept.
REASON_CHARS_MAX = 500

#: MLflow's types of columns, as pandas reads them from text; what is missing is read as it looks.
_DTYPES = {
    "string": "str", "integer": "int32", "long": "int64", "float": "float32", "double": "float64",
}  # fmt: skip

#: The types that MLflow's look at the data leaves as they are.
_EXACT = {
    "string": "object", "integer": "int32", "long": "int64", "float": "float32",
    "double": "float64", "boolean": "bool",
}  # fmt: skip

#: Loaders of models whose `predict` takes a table and nothing else.
_DIRECT = frozenset((
    "mlflow.sklearn", "mlflow.xgboost", "mlflow.lightgbm", "mlflow.pytorch", "mlflow.onnx",
))

#: MLflow's own functions that find out that data does not fit.
_ENFORCING = ("_enforce_", "_validate_prediction_input", "_reshape_and_cast", "validate_schema")


class MlflowModel:
    """A model folder, loaded.

    Attributes:
        folder: Of the file `MLmodel`.
        inputs: The signature's inputs (`ColSpec` or `TensorSpec`), or () without a signature.
        params: The signature's parameters (`ParamSpec`).
        outputs: The signature's outputs.
        is_tensor: Whether the inputs are tensors.
        by_name: The inputs by their names; empty where they have none.
        names: The inputs' names.
        is_list: Whether the model's own type hint says what a list of inputs is made of.
    """

    def __init__(self, folder: Path) -> None:
        """Load the model; blocks.

        Raises:
            UserCodeError: It cannot be loaded, or a package that it needs is missing.
        """
        self.folder = folder
        # MLflow tells its makers what is used, from a thread of its own, unless it is told not to.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            import mlflow.pyfunc

            self._model = mlflow.pyfunc.load_model(str(folder))
        except BaseException as error:   # the model's own code may raise anything, SystemExit too
            raise _explain(error, folder) from error
        metadata = self._model.metadata
        schema = metadata.get_input_schema()
        self.inputs: tuple[Any, ...] = tuple(schema.inputs) if schema is not None else ()
        self.is_tensor = bool(self.inputs) and bool(schema.is_tensor_spec())
        self.by_name = {str(one.name): one for one in self.inputs if one.name is not None}
        self.names = list(self.by_name)
        hinted = getattr(metadata, "_is_signature_from_type_hint", None)   # since MLflow 2.20
        self.is_list = hinted is not None and bool(hinted())
        self._direct, self._exact = self._find_direct()
        self._columns: Any = None
        read = getattr(metadata, "get_params_schema", None)   # since MLflow 2.6
        self.params = _specs(read() if read is not None else None, "params")
        self.outputs = _specs(metadata.get_output_schema(), "inputs")

    @property
    def column_types(self) -> dict[str, str]:
        """The dtype of each column that is read from text, for those whose type says one."""
        if self.is_tensor:
            return {}
        kinds = {name: type_name(one) for name, one in self.by_name.items()}
        return {name: _DTYPES[kind] for name, kind in kinds.items() if kind in _DTYPES}

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Return what the model's own `predict` does.

        Raises:
            InvalidInput: The data or the parameters do not fit the signature, which it tells.
            Exception: What the model raises.
        """
        if params is None and self._direct is not None and self._is_exact(data):
            return self._direct(data)
        try:
            if params is None:
                return self._model.predict(data)
            return self._model.predict(data, params=dict(params))
        except Exception as error:
            if not _is_of_signature(error):
                raise
            raise self.mismatch(_reason(error)) from None

    def _find_direct(self) -> tuple[Callable[[Any], Any] | None, list[str]]:
        """Return the library's own `predict`, as MLflow calls it, and the dtypes of its columns.

        None, unless the library is one of which we know that MLflow adds nothing but its look at
        the data.
        """
        conf = self._model.metadata.flavors["python_function"]
        kinds = [_EXACT.get(type_name(one), "") for one in self.inputs]
        is_plain = bool(self.names) and not self.is_tensor and all(kinds)
        if conf["loader_module"] not in _DIRECT or not is_plain:
            return None, []
        implementation = self._model._model_impl
        return getattr(implementation, conf.get("predict_fn", "predict")), kinds

    def _is_exact(self, data: Any) -> bool:
        """Return whether it is a table with just the signature's columns, of just their types.

        Then MLflow's own look at it would change nothing, and cost as much as a small prediction.
        """
        if not hasattr(data, "dtypes"):
            return False
        if data.columns is self._columns:   # of `table`
            return True
        if data.columns.tolist() != self.names:
            return False
        return all(
            dtype == kind or (kind == "object" and dtype == "str")
            for dtype, kind in zip(data.dtypes, self._exact, strict=True)
        )

    def table(self, values: numpy.ndarray[Any, Any]) -> pandas.DataFrame:
        """Return values of the type of all the signature's columns as a table, in their order."""
        import pandas

        if self._columns is None:
            self._columns = pandas.Index(self.names)
        return pandas.DataFrame(values, columns=self._columns)

    def frame_input(self, frame: pandas.DataFrame) -> Any:
        """Return a table as `predict` takes it: an array, where the signature has one tensor.

        Raises:
            InvalidInput: A column is missing, or the table has not the tensor's shape or type.
        """
        self._check_columns(frame)
        if not self.is_tensor or len(self.inputs) != 1 or self.inputs[0].name in frame.columns:
            return frame
        return self.as_tensor(frame.to_numpy(), self.inputs[0])

    def _check_columns(self, frame: pandas.DataFrame) -> None:
        if self.is_tensor:
            return
        given = [str(name) for name in frame.columns]
        known = set(given)
        missing = [
            name for name, one in self.by_name.items()
            if name not in known and getattr(one, "required", True)
        ]
        if missing:
            shown = ", ".join(f"'{name}'" for name in missing[:NAMED_MAX])
            more = f" and {len(missing) - NAMED_MAX} more" if len(missing) > NAMED_MAX else ""
            others = [name for name in given if name not in self.by_name]
            raise self.mismatch(
                f"missing column {shown}{more}{nearest(missing[0], others)}", COLUMNS_MISSING
            )

    def as_tensor(self, array: numpy.ndarray[Any, Any], spec: Any) -> Any:
        """Return the array in the type and the shape of a tensor of the signature.

        Raises:
            InvalidInput: It has another number of values, or they are of no such type.
        """
        shape = (len(array), *spec.shape[1:])
        found = self.cast(array, spec)
        if sum(size < 0 for size in shape) > 1:
            return found
        try:
            return found.reshape(shape)
        except ValueError as error:
            raise self.mismatch(f"an array of shape {array.shape}: {error}") from None

    def cast(self, array: numpy.ndarray[Any, Any], spec: Any) -> Any:
        """Return the array in the type of a tensor of the signature.

        Raises:
            InvalidInput: Its values are of no such type, or beyond it.
        """
        try:
            found = array.astype(spec.type, copy=False)
            is_changed = spec.type.kind in "iub" and bool((found != array).any())
        except (ValueError, TypeError, OverflowError) as error:
            raise self.mismatch(f"an array of {array.dtype}: {error}") from None
        if is_changed:
            raise self.mismatch(f"an array of {array.dtype} has values that no {spec.type} is")
        return found

    def mismatch(self, reason: str, code: str = "SignatureMismatch") -> InvalidInput:
        """Return the error of data that does not fit the signature."""
        return InvalidInput(
            f"the input does not fit the model's signature: {reason.rstrip('.')}; the model takes "
            f"{self.expected}", code=code,
        )

    @property
    def expected(self) -> str:
        """What the model takes, in one line."""
        if not self.inputs:
            return "anything, for the model has no signature"
        shown = [_shown(one) for one in self.inputs[:SHOWN_MAX]]
        if len(self.inputs) > SHOWN_MAX:
            shown.append(f"and {len(self.inputs) - SHOWN_MAX} more")
        said = ", ".join(shown)
        if self.params:
            said += "; params: " + ", ".join(
                f"{one.name}: {type_name(one)} (default {one.default!r})" for one in self.params
            )
        return said


def _specs(schema: Any, name: str) -> tuple[Any, ...]:
    return tuple(getattr(schema, name)) if schema is not None else ()


def type_name(spec: Any) -> str:
    """Return MLflow's word for a type: `double`, `Array(string)`, or of a tensor its dtype."""
    kind = getattr(spec, "type", None)
    kind = getattr(spec, "dtype", None) if kind is None else kind
    return str(getattr(kind, "name", kind))


def _shown(spec: Any) -> str:
    said = type_name(spec)
    shape = getattr(spec, "shape", None)
    if shape is not None:
        said = f"tensor of {said} {tuple(shape)}"
    if not getattr(spec, "required", True):
        said += " (optional)"
    return said if spec.name is None else f"'{spec.name}': {said}"


def _is_of_signature(error: BaseException) -> bool:
    """Return whether MLflow's own look at the data raised, and not the model."""
    return any(
        name.startswith(_ENFORCING) and "/mlflow/" in file for name, file in _frames(error)
    )


def _frames(error: BaseException) -> Iterator[tuple[str, str]]:
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        yield code.co_name, code.co_filename.replace(os.sep, "/")
        trace = trace.tb_next


def _reason(error: BaseException) -> str:
    """Return why data does not fit, without the data itself, which MLflow's message begins with."""
    text = str(error.__context__ if error.__context__ is not None else error)
    text = " ".join(text.split())
    return text if len(text) <= REASON_CHARS_MAX else f"{text[:REASON_CHARS_MAX]} …"


def _explain(error: BaseException, folder: Path) -> UserCodeError:
    traceback = user_traceback(error, folder)
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    package = name.split(".")[0] if name else ""
    if package and not _is_there(package):
        return UserCodeError(
            f"the MLflow model {folder.name} needs the package '{package}', which is not installed "
            f"where it is loaded ({sys.executable}); name it in the model's requirements.txt or "
            "conda.yaml, or give the deployment an environment that has it",
            code="PackageMissing", details=traceback,
        )
    return UserCodeError(
        f"the MLflow model {folder.name} cannot be loaded: {describe_exception(error)}",
        code="ModelLoadFailed", details=traceback,
    )


def _is_there(package: str) -> bool:
    """Whether the package itself is found, so that only a part of it is missing."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):   # a stand-in of ours has no spec
        return False
