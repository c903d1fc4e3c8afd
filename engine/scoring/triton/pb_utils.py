"""What a Python model imports as `triton_python_backend_utils`.

Source: Triton's Python backend guide. Requests to other models (`exec`), decoupled responses and
memory of a GPU are not served here, and raise.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from inferay.engine.scoring.triton.config import as_dict
from inferay.engine.scoring.triton.tensors import DTYPES, datatype_of

_log = logging.getLogger("triton")


#: The names of the codes of errors, by their numbers.
CODES = (
    "UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED",
    "ALREADY_EXISTS", "CANCELLED",
)

#: Of responses that come piece by piece, of which there are none here.
TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
TRITONSERVER_REQUEST_RELEASE_ALL = 1
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = 2
TRITONSERVER_MEMORY_CPU = 0
TRITONSERVER_MEMORY_GPU = 2

TRITON_STRING_TO_NUMPY = {
    f"TYPE_{name.replace('BYTES', 'STRING')}": dtype for name, dtype in DTYPES.items()
}


class TritonError:
    """Why a request failed, for `InferenceResponse(error=…)`."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG = range(4)
    UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(4, 8)

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

    def shape(self) -> list[int]:
        """Return its shape."""
        return list(self._array.shape)

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
        flags: int = 0, timeout: int = 0, parameters: Mapping[str, Any] | None = None, **_: Any,
    ) -> None:
        self._request_id = request_id
        self._correlation_id = correlation_id
        self._inputs = list(inputs)
        self._wanted = set(requested_output_names)
        self._flags = flags
        self._timeout = timeout
        self._parameters = dict(parameters or {})
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

    def requested_output_names(self) -> set[str]:
        """Return what the client wants to have."""
        return self._wanted

    def parameters(self) -> str:
        """Return the request's parameters as JSON."""
        return json.dumps(self._parameters)

    def timeout(self) -> int:
        """Return 0: the endpoint has the time-out."""
        return self._timeout

    def flags(self) -> int:
        """Return 0: there are no sequences."""
        return self._flags

    def set_release_flags(self, flags: int) -> None:
        """Do nothing: a request is never given back."""

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

    INFO, WARNING, ERROR, VERBOSE = logging.INFO, logging.WARNING, logging.ERROR, logging.DEBUG

    @staticmethod
    def log(message: str, level: int = logging.INFO) -> None:
        """Write a line."""
        _log.log(level, "%s", message)

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


LogLevel = Logger


class ModelConfig:
    """What `auto_complete_config` changes: a model's configuration."""

    def __init__(self, message: Any) -> None:
        self._message = message

    def as_dict(self) -> dict[str, Any]:
        """Return all of it."""
        return as_dict(self._message)

    def add_input(self, tensor: Mapping[str, Any]) -> None:
        """Add an input that is not there yet: `name`, `data_type`, `dims`."""
        _add(self._message.input, tensor)

    def add_output(self, tensor: Mapping[str, Any]) -> None:
        """Add an output that is not there yet: `name`, `data_type`, `dims`."""
        _add(self._message.output, tensor)

    def set_max_batch_size(self, size: int) -> None:
        """Set how many rows a request may have, where nothing is said of it."""
        self._message.max_batch_size = self._message.max_batch_size or size

    def set_dynamic_batching(self) -> None:
        """Have requests joined."""
        self._message.dynamic_batching.SetInParent()

    def set_model_transaction_policy(self, policy: Mapping[str, Any]) -> None:
        """Set whether the model is decoupled, which is refused."""
        self._message.model_transaction_policy.decoupled = bool(policy.get("decoupled"))


def _add(tensors: Any, wanted: Mapping[str, Any]) -> None:
    if all(one.name != wanted["name"] for one in tensors):
        tensors.add(
            name=wanted["name"], data_type=wanted["data_type"], dims=wanted["dims"],
            **({"optional": True} if wanted.get("optional") else {}),
        )


def get_model_dir() -> str:
    """Return the folder of the version whose code asks."""
    file = sys._getframe(1).f_code.co_filename
    return str(Path(file).parent)


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
    return TRITON_STRING_TO_NUMPY[name]


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
