"""What a Python model imports as `triton_python_backend_utils`.

Source: Triton's Python backend guide. Requests to other models (`exec`), decoupled responses and
memory of a GPU are not served here, and raise.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy

from inferay.engine.scoring.triton.tensors import DTYPES, datatype_of

_log = logging.getLogger("triton")


class TritonError:
    """Why a request failed, for `InferenceResponse(error=…)`."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = (   # noqa: E501
        range(8)
    )

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message = message
        self._code = code

    def message(self) -> str:
        """Return what it says."""
        return self._message

    def code(self) -> int:
        """Return its code."""
        return self._code


class TritonModelException(Exception):
    """What a model may raise."""


class Tensor:
    """A named array."""

    def __init__(self, name: str, array: Any) -> None:
        if not isinstance(array, numpy.ndarray):
            raise TritonModelException(
                f"the tensor '{name}' has to be made of a numpy array, not of "
                f"{type(array).__name__}"
            )
        self._name = name
        self._array = array

    def name(self) -> str:
        """Return its name."""
        return self._name

    def as_numpy(self) -> Any:
        """Return its values."""
        return self._array

    def shape(self) -> tuple[int, ...]:
        """Return its shape."""
        return tuple(self._array.shape)

    def triton_dtype(self) -> str:
        """Return its type, as the configuration calls it."""
        return f"TYPE_{datatype_of(self._array).replace('BYTES', 'STRING')}"

    def is_cpu(self) -> bool:
        """Return True: nothing lies on a GPU."""
        return True

    def to_dlpack(self) -> Any:
        """Return it as a DLPack capsule."""
        return self._array.__dlpack__()

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> Tensor:
        """Return a tensor of another library's memory."""
        return Tensor(name, numpy.from_dlpack(tensor))


class InferenceRequest:
    """What a client asks."""

    def __init__(
        self, request_id: str = "", correlation_id: int = 0, inputs: Sequence[Tensor] = (),
        requested_output_names: Sequence[str] = (), model_name: str = "", model_version: int = -1,
        **_: Any,
    ) -> None:
        self._request_id = request_id
        self._correlation_id = correlation_id
        self._inputs = list(inputs)
        self._wanted = list(requested_output_names)
        self.model_name = model_name
        self.model_version = model_version

    def inputs(self) -> list[Tensor]:
        """Return the inputs."""
        return self._inputs

    def request_id(self) -> str:
        """Return the client's name for it."""
        return self._request_id

    def correlation_id(self) -> int:
        """Return 0: there are no sequences."""
        return self._correlation_id

    def requested_output_names(self) -> list[str]:
        """Return what the client wants to have."""
        return self._wanted

    def parameters(self) -> str:
        """Return the request's parameters as JSON: none."""
        return "{}"

    def is_cancelled(self) -> bool:
        """Return False: a call ends when it ends."""
        return False

    def exec(self, *_: Any, **__: Any) -> Any:
        """Raise: models do not call each other here."""
        raise TritonModelException("a model that calls another (exec) is not served here")

    async_exec = exec

    def get_response_sender(self) -> Any:
        """Raise: each request has one response here."""
        raise TritonModelException("a decoupled model (get_response_sender) is not served here")


class InferenceResponse:
    """What a model answers."""

    def __init__(
        self, output_tensors: Sequence[Tensor] = (), error: TritonError | str | None = None
    ) -> None:
        self._outputs = list(output_tensors)
        self._error = TritonError(error) if isinstance(error, str) else error

    def output_tensors(self) -> list[Tensor]:
        """Return the outputs."""
        return self._outputs

    def has_error(self) -> bool:
        """Return whether it says why it failed."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """Return why it failed."""
        return self._error


class Logger:
    """Triton's log: lines of the deployment's."""

    @staticmethod
    def log(message: str, level: int | None = None) -> None:
        """Write a line."""
        _log.info("%s", message)

    @staticmethod
    def log_info(message: str) -> None:
        """Write a line."""
        _log.info("%s", message)

    @staticmethod
    def log_warn(message: str) -> None:
        """Write a warning."""
        _log.warning("%s", message)

    @staticmethod
    def log_error(message: str) -> None:
        """Write an error."""
        _log.error("%s", message)

    @staticmethod
    def log_verbose(message: str) -> None:
        """Write a line for debugging."""
        _log.debug("%s", message)


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    """Return an input, or None."""
    return next((one for one in request.inputs() if one.name() == name), None)


def get_output_tensor_by_name(response: InferenceResponse, name: str) -> Tensor | None:
    """Return an output, or None."""
    return next((one for one in response.output_tensors() if one.name() == name), None)


def get_input_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return what the configuration says of an input, or None."""
    return _by_name(model_config, "input", name)


def get_output_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Return what the configuration says of an output, or None."""
    return _by_name(model_config, "output", name)


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> bool:
    """Return False: such models are refused."""
    return False


def triton_string_to_numpy(name: str) -> Any:
    """Return numpy's type for one of the configuration's, such as `TYPE_FP32`."""
    return DTYPES[name.removeprefix("TYPE_").replace("STRING", "BYTES")]


def deserialize_bytes_tensor(encoded: Any) -> Any:
    """Return the texts of a BYTES tensor's bytes."""
    from tritonclient.utils import deserialize_bytes_tensor as deserialize

    return deserialize(encoded)


def serialize_byte_tensor(array: Any) -> Any:
    """Return the bytes of a BYTES tensor."""
    from tritonclient.utils import serialize_byte_tensor as serialize

    return serialize(array)


def _by_name(model_config: dict[str, Any] | str, what: str, name: str) -> dict[str, Any] | None:
    found = json.loads(model_config) if isinstance(model_config, str) else model_config
    return next((one for one in found.get(what, ()) if one["name"] == name), None)
