"""One version of a model: what it takes, and its calls."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy

from inferay.engine.scoring.triton.combiner import Combiner
from inferay.engine.scoring.triton.config import ONNX, Config, Tensor, config_of, read_message
from inferay.engine.scoring.triton.errors import ModelError, refusal
from inferay.engine.scoring.triton.request import InferRequest
from inferay.engine.scoring.triton.tensors import datatype_of
from inferay.errors import InvalidInput, nearest


class Backend(Protocol):
    """What runs a model.

    Attributes:
        is_joined: Whether a call has one request, which others were joined to, row after row.
        message: The configuration, completed by what the model itself says.
    """

    is_joined: bool
    message: Any

    def start(self, config: Config) -> None:
        """Get ready."""

    def run(
        self, requests: Sequence[InferRequest]
    ) -> list[Mapping[str, Any] | ModelError]:
        """Return the outputs of each request, or why it failed."""

    def close(self) -> None:
        """End."""


class TritonModel:
    """A version of a model, loaded; any number of threads may call it.

    Attributes:
        config: Of the model.
        version: The name of its folder.

    Raises:
        InvalidInput: The configuration is wrong, or wants what is not served here.
        UserCodeError: The model cannot be loaded.
    """

    def __init__(self, folder: Path, version: str) -> None:
        message = read_message(folder)
        path = folder / version / message.default_model_filename
        if not path.is_file():
            raise refusal(folder, f"there is no file {version}/{path.name}", "NoModel")
        self._backend = _backend(folder, folder / version, message)
        self.config = config_of(folder, self._backend.message)
        self.version = version
        self._backend.start(self.config)
        self._inputs = {one.name: one for one in self.config.inputs}
        self._outputs = {one.name: one for one in self.config.outputs}
        self._instances = threading.BoundedSemaphore(self.config.instances)
        self._combiner: Combiner | None = None
        if self.config.batching is not None:
            self._combiner = Combiner(
                self._call, self.config.rows_max, self.config.instances, self.config.batching
            )

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.name

    def infer(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] = (), *, id: str = "",
        parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the outputs that are wanted, or all of them, in the model's order; blocks.

        Args:
            inputs: Arrays by name, with the batch as their first axis if the model has one.
            outputs: Names.
            id: The client's name for the request.
            parameters: The client's own.

        Raises:
            InvalidInput: The inputs are not what the model takes.
            ModelError: The model says that it failed, or returned what no client can be sent.
            Exception: What the model raises.
        """
        for name in outputs:
            if name not in self._outputs:
                raise InvalidInput(
                    f"unexpected inference output '{name}' for model '{self.name}'"
                    f"{nearest(name, self._outputs)}", target=name,
                )
        rows = self._check(inputs)
        given = {name: self._reshaped(self._inputs[name], one) for name, one in inputs.items()}
        asked = InferRequest(
            given, tuple(outputs) or tuple(self._outputs), id, parameters or {}
        )
        if self._combiner is None:
            with self._instances:
                found = self._call([asked])[0]
        else:
            found = self._combiner.submit(_key_of(given), rows, asked)
        if isinstance(found, ModelError):
            raise found
        return {
            name: self._checked(name, array) for name, array in found.items()
            if name in asked.outputs
        }

    def close(self) -> None:
        """End it.

        Raises:
            Exception: What the model's own code raises.
        """
        self._backend.close()

    def _call(
        self, requests: Sequence[InferRequest]
    ) -> Sequence[Mapping[str, Any] | ModelError]:
        if not self._backend.is_joined or len(requests) == 1:
            return self._backend.run(requests)
        joined = {
            name: numpy.concatenate([one.inputs[name] for one in requests])
            for name in requests[0].inputs
        }
        wanted = {name for one in requests for name in one.outputs}
        [found] = self._backend.run([
            InferRequest(joined, tuple(name for name in self._outputs if name in wanted))
        ])
        if isinstance(found, ModelError):
            raise found
        stops = numpy.cumsum([len(next(iter(one.inputs.values()))) for one in requests])
        for name, output in found.items():
            if len(output) != stops[-1]:
                raise ModelError(
                    f"the output '{name}' has {len(output)} rows for a batch of {stops[-1]}"
                )
        parts = {name: numpy.split(output, stops[:-1]) for name, output in found.items()}
        return [
            {name: part[number] for name, part in parts.items()} for number in range(len(requests))
        ]

    def _check(self, inputs: Mapping[str, Any]) -> int:
        """Return how many rows there are; 1 without a batch.

        Raises:
            InvalidInput: The inputs are not what the model takes.
        """
        for name in inputs:
            if name not in self._inputs:
                raise InvalidInput(
                    f"unexpected inference input '{name}' for model '{self.name}'; expected "
                    f"{self.expected}{nearest(name, self._inputs)}", target=name,
                )
        rows = 1
        is_first = True
        for name, spec in self._inputs.items():
            array = inputs.get(name)
            if array is None:
                if spec.is_optional:
                    continue
                raise InvalidInput(
                    f"missing inference input '{name}' for model '{self.name}'; expected "
                    f"{self.expected}", target=name,
                )
            kind = datatype_of(array)
            if kind != spec.datatype:
                raise InvalidInput(
                    f"inference input '{name}' data-type is '{kind or array.dtype}', but model "
                    f"'{self.name}' expects '{spec.datatype}'", target=name,
                )
            self._check_shape(spec, array.shape)
            if self.config.rows_max:
                if not is_first and len(array) != rows:
                    raise InvalidInput(
                        f"input '{name}' has a batch of {len(array)}, and another input of "
                        f"model '{self.name}' has {rows}", target=name,
                    )
                rows, is_first = len(array), False
        if self.config.rows_max and not 1 <= rows <= self.config.rows_max:
            raise InvalidInput(
                f"inference request batch-size must be 1 to {self.config.rows_max} for "
                f"'{self.name}', got {rows}", code="BatchTooLarge",
            )
        return rows

    @property
    def expected(self) -> str:
        """What the model takes, for errors."""
        return ", ".join(
            f"{one.name} {one.datatype} {self.shape_of(one)}" for one in self.config.inputs
        )

    def shape_of(self, spec: Tensor) -> list[int]:
        """Return a tensor's shape with its batch, as the protocol's metadata has it."""
        return [-1, *spec.dims] if self.config.rows_max else list(spec.dims)

    def _check_shape(self, spec: Tensor, shape: tuple[int, ...]) -> None:
        wanted = self.shape_of(spec)
        if len(shape) != len(wanted) or any(
            size not in (-1, given) for size, given in zip(wanted, shape, strict=True)
        ):
            raise InvalidInput(
                f"unexpected shape for input '{spec.name}' for model '{self.name}'. Expected "
                f"{wanted}, got {list(shape)}", target=spec.name,
            )

    def _reshaped(self, spec: Tensor, array: Any) -> Any:
        if spec.reshape is None:
            return array
        rows = [len(array)] if self.config.rows_max else []
        return array.reshape([*rows, *spec.reshape])

    def _checked(self, name: str, array: Any) -> Any:
        """Return an output in the configuration's shape.

        Raises:
            ModelError: The protocol has no name for its type.
        """
        if not datatype_of(array):
            raise ModelError(f"the output '{name}' is of type {array.dtype}, which has no name")
        spec = self._outputs[name]
        if spec.reshape is None:
            return array
        return array.reshape([len(array), *spec.dims] if self.config.rows_max else spec.dims)


def _backend(folder: Path, version: Path, message: Any) -> Backend:
    if message.backend == ONNX:
        from inferay.engine.scoring.triton.onnx import OnnxBackend

        return OnnxBackend(folder, version, message)
    from inferay.engine.scoring.triton.python_model import PythonBackend

    return PythonBackend(folder, version, message)


def _key_of(inputs: Mapping[str, Any]) -> Any:
    """Return what requests that go together have in common: names, and shapes but for the rows."""
    return tuple((name, one.shape[1:]) for name, one in inputs.items())


