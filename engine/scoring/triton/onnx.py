"""Triton's ONNX Runtime backend: a session, and what a model's file says of its tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from inferay.engine.scoring.tracebacks import describe_exception
from inferay.engine.scoring.triton.config import Config, datatype_of, type_number
from inferay.engine.scoring.triton.errors import ModelError, refusal
from inferay.engine.scoring.triton.layout import CONFIG
from inferay.engine.scoring.triton.request import InferRequest
from inferay.errors import UserCodeError

#: `max_batch_size` of a model that can have one and says none, as Triton's backend has it.
ROWS_MAX = 4

#: The protocol's names of ONNX Runtime's types.
_TYPES = {
    "tensor(bool)": "BOOL", "tensor(uint8)": "UINT8", "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32", "tensor(uint64)": "UINT64", "tensor(int8)": "INT8",
    "tensor(int16)": "INT16", "tensor(int32)": "INT32", "tensor(int64)": "INT64",
    "tensor(float16)": "FP16", "tensor(float)": "FP32", "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}  # fmt: skip

#: What `optimization.graph.level` means.
_LEVELS = {
    -1: "ORT_ENABLE_BASIC", 0: "ORT_ENABLE_ALL", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL",
}  # fmt: skip


class OnnxBackend:
    """A session of ONNX Runtime, which any number of threads may call; loading it blocks.

    Attributes:
        message: The configuration that it was given, completed by what the file says.

    Raises:
        InvalidInput: The configuration and the file differ.
        UserCodeError: The file cannot be loaded, or ONNX Runtime is missing.
    """

    #: Requests are joined to one along their first axis.
    is_joined = True

    def __init__(self, folder: Path, version: Path, message: Any) -> None:
        runtime = _runtime(folder)
        path = version / message.default_model_filename
        options = _options(runtime, message)
        try:
            self._session = runtime.InferenceSession(
                path, options, providers=_providers(runtime, folder, message)
            )
        except Exception as error:   # its own classes, which it does not export
            raise UserCodeError(
                f"the Triton model {folder.name}: {version.name}/{path.name} cannot be loaded by "
                f"ONNX Runtime {runtime.__version__}: {describe_exception(error)}",
                code="ModelLoadFailed",
            ) from error
        self._inputs = self._session.get_inputs()
        self._outputs = self._session.get_outputs()
        self._texts = {one.name for one in self._inputs if one.type == "tensor(string)"}
        self.message = self._completed(folder, message)

    def start(self, config: Config) -> None:
        """Nothing is to be done: one session serves all instances."""

    def run(
        self, requests: Sequence[InferRequest]
    ) -> list[Mapping[str, Any] | ModelError]:
        """Return the outputs that are wanted, of the one request that there is.

        Raises:
            Exception: What ONNX Runtime raises.
        """
        [asked] = requests
        feeds, outputs = asked.inputs, asked.outputs
        if self._texts:
            feeds = {
                name: _texts_of(value) if name in self._texts else value
                for name, value in feeds.items()
            }
        found = self._session.run(list(outputs), dict(feeds))
        return [dict(zip(outputs, map(_plain, found), strict=True))]

    def close(self) -> None:
        """Nothing is held."""

    def _completed(self, folder: Path, message: Any) -> Any:
        is_batched = message.max_batch_size > 0
        tensors = (*self._inputs, *self._outputs)
        given = [*message.input, *message.output]
        ranks = {one.name: len(one.shape) for one in tensors}
        # A configuration whose dims have the batch says that it wants none of its own.
        is_open = all(len(_own_dims(one)) == ranks.get(one.name, 0) - 1 for one in given)
        if not is_batched and is_open and all(
            ranks[one.name] and _shape(one)[0] == -1 for one in tensors
        ):
            message.max_batch_size, is_batched = ROWS_MAX, True
            message.dynamic_batching.SetInParent()
        for wanted, there, what in (
            (message.input, self._inputs, "input"), (message.output, self._outputs, "output"),
        ):
            known = {one.name: one for one in there}
            if not wanted:
                for one in there:
                    wanted.add(
                        name=one.name, data_type=type_number(_type(folder, one)),
                        dims=_shape(one)[1:] if is_batched else _shape(one),
                    )
            for one in wanted:
                if one.name not in known:
                    names = ", ".join(known)
                    raise refusal(
                        folder, f"{CONFIG}: the model has no {what} '{one.name}'; it has {names}"
                    )
                _check(folder, one, known[one.name], is_batched)
        missing = {one.name for one in self._inputs} - {one.name for one in message.input}
        if missing:
            raise refusal(folder, f"{CONFIG} lacks the model's input '{min(missing)}'")
        return message


def _runtime(folder: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserCodeError(
            f"the Triton model {folder.name} needs the package 'onnxruntime', which is not "
            "installed where it is loaded; pip install 'inferay[triton]' on the cluster's "
            "machines, or give the deployment an environment that has it",
            code="PackageMissing", details=str(error),
        ) from error
    return onnxruntime


def _options(runtime: Any, message: Any) -> Any:
    options = runtime.SessionOptions()
    given = {name: one.string_value for name, one in message.parameters.items()}
    # An instance has its share of the machine, of which ONNX Runtime knows nothing.
    threads = given.get("intra_op_thread_count") or os.environ.get("OMP_NUM_THREADS", "0")
    options.intra_op_num_threads = int(threads)
    options.inter_op_num_threads = int(given.get("inter_op_thread_count") or 0)
    if given.get("execution_mode") == "1":
        options.execution_mode = runtime.ExecutionMode.ORT_PARALLEL
    options.enable_cpu_mem_arena = given.get("enable_mem_arena") != "0"
    options.enable_mem_pattern = given.get("enable_mem_pattern") != "0"
    level = _LEVELS[message.optimization.graph.level]
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
    # Threads that spin between two calls take the cores from all else on the machine.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    return options


def _providers(runtime: Any, folder: Path, message: Any) -> list[Any]:
    groups = message.instance_group
    kind = groups[0].Kind.Name(groups[0].kind) if groups else "KIND_AUTO"
    has_gpu = "CUDAExecutionProvider" in runtime.get_available_providers()
    if kind == "KIND_GPU" and not has_gpu:
        raise refusal(
            folder, f"{CONFIG}: KIND_GPU needs the package 'onnxruntime-gpu' and a GPU; there is "
            "none here", "NoGpu",
        )
    if kind == "KIND_CPU" or not has_gpu:
        return ["CPUExecutionProvider"]
    gpus = [gpu for group in groups for gpu in group.gpus]
    return [("CUDAExecutionProvider", {"device_id": gpus[0] if gpus else 0}),
            "CPUExecutionProvider"]


def _shape(tensor: Any) -> list[int]:
    """Return a tensor's shape; a size that has a name, or none, is any."""
    return [size if isinstance(size, int) and size >= 0 else -1 for size in tensor.shape or ()]


def _type(folder: Path, tensor: Any) -> str:
    found = _TYPES.get(tensor.type)
    if found is None:
        raise refusal(folder, f"'{tensor.name}' is a {tensor.type}, which is not served here")
    return found


def _check(folder: Path, wanted: Any, tensor: Any, is_batched: bool) -> None:
    kind, datatype = _type(folder, tensor), datatype_of(wanted)
    if datatype != kind:
        raise refusal(
            folder, f"{CONFIG}: '{wanted.name}' is {datatype}, and the model's is {kind}"
        )
    own = _shape(tensor)
    dims = [-1, *_own_dims(wanted)] if is_batched else _own_dims(wanted)
    fits = len(own) == len(dims) and all(
        -1 in (one, other) or one == other for one, other in zip(own, dims, strict=True)
    )
    if tensor.shape and not fits:
        raise refusal(
            folder, f"{CONFIG}: '{wanted.name}' has the shape {dims}"
            f"{' with its batch' if is_batched else ''}, and the model's is {own}"
        )
    if is_batched and own and own[0] != -1:
        raise refusal(
            folder, f"{CONFIG}: max_batch_size is set, but the first size of '{wanted.name}' is "
            f"always {own[0]}; set max_batch_size: 0, and the whole shape as dims"
        )


def _own_dims(message: Any) -> list[int]:
    """Return the shape that the configuration says of the model's own tensor."""
    return list(message.reshape.shape if message.HasField("reshape") else message.dims)


def _texts_of(array: Any) -> Any:
    """Return an array of bytes as the texts that ONNX Runtime takes."""
    return numpy.array(
        [one.decode() if isinstance(one, bytes) else one for one in array.ravel()], numpy.object_
    ).reshape(array.shape)


def _plain(found: Any) -> Any:
    if isinstance(found, numpy.ndarray) and found.dtype.kind in "OU":
        flat = [one.encode() if isinstance(one, str) else one for one in found.ravel()]
        return numpy.array(flat, numpy.object_).reshape(found.shape)
    return found
