"""An MLflow model in an online deployment without code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from inferay.engine.scoring.mlflow_model import MlflowModel, type_name
from inferay.errors import InvalidInput
from inferay.serve.server.entry import OPTIONS, SCORE, SCORE_METHODS
from inferay.serve.server.http import Answer, Refused, Request
from inferay.serve.server.mlflow_input import data_of
from inferay.serve.server.threads import Threads

#: How Swagger calls MLflow's types.
_SWAGGER = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "float"},
    "double": {"type": "number", "format": "double"},
    "string": {"type": "string"},
    "binary": {"type": "string", "format": "byte"},
    "datetime": {"type": "string", "format": "date-time"},
}


class MlflowEntry:
    """How a model is called for a request; see `Entry`. Loads the model; blocks.

    Raises:
        UserCodeError: It cannot be loaded, or a package that it needs is missing.
    """

    kind: Literal["text", "schema", "raw"] = "text"
    is_async = False
    error_key = "message"
    health_paths: frozenset[str] = frozenset()

    def __init__(self, folder: Path) -> None:
        self.model = MlflowModel(folder)

    def threads(self, at_once: int) -> Threads:
        """Return a thread for each call."""
        return Threads(at_once)

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Return the methods of `/score`."""
        return SCORE_METHODS if path == SCORE else None

    def told(self, request: Request) -> Answer | None:
        """Return nothing but what a browser asks ahead."""
        return OPTIONS if request.method == "OPTIONS" else None

    def arguments(self, request: Request) -> dict[str, Any]:
        """Return what `run` is called with.

        Raises:
            Refused: The request holds nothing that fits the model's signature.
        """
        data, params = data_of(request, self.model)
        return {"data": data, "params": params}

    def run(self, data: Any, params: Mapping[str, Any] | None) -> Any:
        """Return the model's predictions.

        Raises:
            Refused: The data or the parameters do not fit the model's signature.
            Exception: What the model raises.
        """
        try:
            result = self.model.predict(data, params)
        except InvalidInput as error:
            raise Refused(400, error.message) from None
        return result.toarray() if hasattr(result, "toarray") else result   # scipy's sparse ones

    def release(self, arguments: dict[str, Any]) -> None:
        """Nothing is held."""

    @property
    def schemas(self) -> tuple[Any, Any]:
        """What a request takes and its answer holds, as Swagger says it."""
        model = self.model
        taken: dict[str, Any] = {
            "type": "object", "required": ["input_data"],
            "properties": {"input_data": _input_schema(model)},
        }
        if model.params:
            taken["properties"]["params"] = {"type": "object", "properties": {
                one.name: {**_schema_of(one), "default": one.default} for one in model.params
            }}
        return taken, {"type": "array", "items": _output_schema(model)}


def _input_schema(model: MlflowModel) -> dict[str, Any]:
    if not model.inputs:
        return {}
    if model.is_tensor:
        if len(model.inputs) == 1:
            return _tensor_schema(model.inputs[0])
        return _object(model.inputs, _tensor_schema)
    if not model.names:
        items = {"type": "array", "items": {}}
        return {"type": "array", "items": items, "description": model.expected}
    return {
        "type": "object", "required": ["columns", "data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string", "enum": model.names}},
            "index": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array", "items": {"type": "array", "items": {}}},
        },
        "description": f"Also a list of objects. The columns: {model.expected}",
    }


def _output_schema(model: MlflowModel) -> dict[str, Any]:
    outputs = model.outputs
    if len(outputs) == 1 and getattr(outputs[0], "shape", None) is None:
        return _schema_of(outputs[0])
    if outputs and all(one.name is not None for one in outputs):
        return _object(outputs, _schema_of)
    return {}


def _object(specs: tuple[Any, ...], schema_of: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {str(one.name): schema_of(one) for one in specs}}


def _schema_of(spec: Any) -> dict[str, Any]:
    return dict(_SWAGGER.get(type_name(spec), {}))


def _tensor_schema(spec: Any) -> dict[str, Any]:
    kind = "number" if spec.type.kind in "biuf" else "string"
    schema: dict[str, Any] = {"type": kind}
    for _ in spec.shape:
        schema = {"type": "array", "items": schema}
    return {**schema, "description": f"{type_name(spec)} {tuple(spec.shape)}"}
