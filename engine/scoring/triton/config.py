"""What a `config.pbtxt` says of a model, and the refusal of all that is not honoured here.

Source: Triton's `model_config.proto`, which `tritonclient` ships, and its model configuration
guide. A field that is neither honoured nor without effect is refused by its name: a model that
loads behaves as its configuration says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferay.engine.scoring.triton.errors import refusal
from inferay.engine.scoring.triton.layout import CONFIG
from inferay.errors import UserCodeError

ONNX, PYTHON = "onnxruntime", "python"

#: What each backend loads, unless the configuration names another file.
FILES = {ONNX: "model.onnx", PYTHON: "model.py"}

#: Triton's own names: of the older field `platform`.
_PLATFORMS = {"onnxruntime_onnx": ONNX}

#: What is honoured, or changes nothing that is served here.
_KNOWN = {
    "ModelConfig": frozenset((
        "name", "platform", "backend", "version_policy", "max_batch_size", "input", "output",
        "dynamic_batching", "instance_group", "default_model_filename", "parameters",
        "optimization", "response_cache", "model_transaction_policy",
    )),
    "ModelInput": frozenset(("name", "data_type", "format", "dims", "reshape", "optional")),
    "ModelOutput": frozenset(("name", "data_type", "dims", "reshape", "label_filename")),
    "ModelInstanceGroup": frozenset(("name", "kind", "count", "gpus")),
    "ModelDynamicBatching": frozenset((
        "preferred_batch_size", "max_queue_delay_microseconds", "preserve_ordering",
    )),
    "ModelOptimizationPolicy": frozenset(("graph", "input_pinned_memory", "output_pinned_memory")),
    "ModelResponseCache": frozenset(),
    "ModelTransactionPolicy": frozenset(),
}  # fmt: skip

#: Parameters of the ONNX Runtime backend that are honoured.
ONNX_PARAMETERS = frozenset((
    "intra_op_thread_count", "inter_op_thread_count", "execution_mode", "enable_mem_arena",
    "enable_mem_pattern",
))

#: Names that the protocol gives to types, where they are not those of the configuration.
_DATATYPES = {"STRING": "BYTES"}

#: Whole numbers that protobuf's JSON has as texts, and Triton's has not.
_NUMBERS = frozenset((
    "dims", "shape", "preferred_batch_size", "versions", "max_queue_delay_microseconds",
    "priority_levels", "default_priority_level", "default_timeout_microseconds",
))


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model.

    Attributes:
        name: Of the tensor.
        datatype: As the protocol calls it, such as `FP32`.
        dims: Its shape without the batch; -1 for any size.
        reshape: What the model itself is given, or gives, in place of `dims`.
        is_optional: Whether a request may leave it out.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    is_optional: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the model itself knows, without the batch."""
        return self.dims if self.reshape is None else self.reshape


@dataclass(frozen=True)
class Batching:
    """How requests that are in flight together become one call of the model.

    Attributes:
        sizes: The rows of a batch that is worth waiting for; () for as many as there may be.
        wait_s: For how long.
    """

    sizes: tuple[int, ...] = ()
    wait_s: float = 0.0


@dataclass(frozen=True)
class Config:
    """A model's configuration.

    Attributes:
        message: All of it, as Triton's protobuf.
        backend: `onnxruntime` or `python`.
        file: What a version's folder holds.
        rows_max: `max_batch_size`; 0 for a model whose tensors have no batch.
        batching: None for a call for each request.
        instances: Calls of the model at once.
        device: `cpu`, `gpu`, or `auto` for a GPU where there is one.
        parameters: The model's own.
    """

    message: Any = field(repr=False)
    name: str
    backend: str
    file: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    rows_max: int
    batching: Batching | None
    instances: int
    device: str
    parameters: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return what Triton answers at `…/config`."""
        return as_dict(self.message)

    def as_json(self) -> str:
        """Return what a Python model is initialised with."""
        return json.dumps(self.as_dict())


def as_dict(message: Any) -> dict[str, Any]:
    """Return a message as Triton's JSON has it: all fields, and whole numbers as such."""
    from google.protobuf import json_format

    found: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True,
    )
    return {name: _with_numbers(name, value) for name, value in found.items()}


def read_message(folder: Path) -> Any:
    """Return what a model's folder says, completed by what Triton takes as said.

    Raises:
        InvalidInput: The file cannot be read, or wants what is not honoured here.
        UserCodeError: The package that reads it is missing.
    """
    pb = _pb()
    from google.protobuf import text_format

    message, path = pb.ModelConfig(), folder / CONFIG
    if path.is_file():
        try:
            text_format.Parse(path.read_text(), message)
        except (text_format.ParseError, ValueError) as error:   # ValueError: no UTF-8
            said = " ".join(str(error).split())
            raise refusal(folder, f"{CONFIG} cannot be read: {said}", "BadConfig") from None
    if message.name not in ("", folder.name):
        raise refusal(folder, f"{CONFIG}: name '{message.name}' has to be its folder's name")
    message.name = folder.name
    check(folder, message)
    message.backend = _backend(folder, message)
    message.platform = "onnxruntime_onnx" if message.backend == ONNX else ""
    message.default_model_filename = message.default_model_filename or FILES[message.backend]
    if Path(message.default_model_filename).name != message.default_model_filename:
        raise refusal(folder, "default_model_filename has to be the name of a file")
    if not message.version_policy.ListFields():
        message.version_policy.latest.num_versions = 1
    message.optimization.SetInParent()
    check(folder, message)
    return message


def check(folder: Path, message: Any) -> None:
    """Check that a message asks for nothing that is not honoured.

    Raises:
        InvalidInput: It does.
    """
    _check_known(folder, message)
    _check_values(folder, message)


def config_of(folder: Path, message: Any) -> Config:
    """Return the configuration that a complete message is.

    Raises:
        InvalidInput: It has no inputs or outputs, or they are wrong.
    """
    for what, found in (("input", message.input), ("output", message.output)):
        if not found:
            raise refusal(folder, f"{CONFIG} has no {what}; the {message.backend} backend needs it")
    batching = None
    if message.HasField("dynamic_batching") and message.max_batch_size > 1:
        wanted = message.dynamic_batching
        sizes = tuple(sorted(wanted.preferred_batch_size))
        if any(not 0 < size <= message.max_batch_size for size in sizes):
            raise refusal(folder, f"preferred_batch_size has to be 1 to {message.max_batch_size}")
        batching = Batching(sizes, wanted.max_queue_delay_microseconds / 1e6)
        if not sizes:
            wanted.preferred_batch_size.append(message.max_batch_size)
    groups = message.instance_group
    kinds = {group.Kind.Name(group.kind) for group in groups} or {"KIND_AUTO"}
    if not groups:
        groups.add(kind="KIND_CPU")
    for number, group in enumerate(groups):
        group.name = group.name or f"{message.name}_{number}"
        group.count = group.count or 1
    return Config(
        message, message.name, message.backend, message.default_model_filename,
        tuple(_tensor(folder, one) for one in message.input),
        tuple(_tensor(folder, one) for one in message.output),
        message.max_batch_size, batching,
        sum(group.count * max(1, len(group.gpus)) for group in groups),
        kinds.pop().removeprefix("KIND_").lower(),
        {name: one.string_value for name, one in message.parameters.items()},
    )


def datatype_of(message: Any) -> str:
    """Return what the protocol calls the type of an input or output."""
    name: str = _pb().DataType.Name(message.data_type).removeprefix("TYPE_")
    return _DATATYPES.get(name, name)


def type_number(datatype: str) -> int:
    """Return what the configuration calls a type of the protocol."""
    name = next((own for own, known in _DATATYPES.items() if known == datatype), datatype)
    number: int = _pb().DataType.Value(f"TYPE_{name}")
    return number


def _pb() -> Any:
    try:
        from tritonclient.grpc import model_config_pb2
    except (ImportError, RuntimeError) as error:   # RuntimeError: without gRPC
        raise UserCodeError(
            "a Triton model needs the package 'tritonclient[grpc]', which is not installed where "
            "it is loaded; pip install 'inferay[triton]' on the cluster's machines, or give the "
            "deployment an environment that has it", code="PackageMissing", details=str(error),
        ) from error
    return model_config_pb2


def _backend(folder: Path, message: Any) -> str:
    given = message.backend or _PLATFORMS.get(message.platform, message.platform)
    if given in FILES:
        return str(given)
    if given:
        raise refusal(
            folder, f"the backend '{given}' is not served here; there are {', '.join(FILES)}",
            "BackendNotServed",
        )
    file = message.default_model_filename
    for backend, usual in FILES.items():
        if file.endswith(Path(usual).suffix) if file else list(folder.glob(f"*/{usual}")):
            return backend
    raise refusal(
        folder, f"neither a {CONFIG} with a backend nor a file VERSION/model.onnx or "
        "VERSION/model.py", "NoModel",
    )


def _check_known(folder: Path, message: Any, place: str = "") -> None:
    known = _KNOWN.get(message.DESCRIPTOR.name)
    if known is None:
        return
    for one, value in message.ListFields():
        where = f"{place}{one.name}"
        if one.name not in known:
            raise refusal(
                folder, f"{CONFIG}: '{where}' is not served here; leave it out, or serve the "
                "model with Triton itself", "NotServed",
            )
        if one.message_type is None or one.message_type.GetOptions().map_entry:
            continue
        for inner in value if one.is_repeated else (value,):
            _check_known(folder, inner, f"{where}.")


def _check_values(folder: Path, message: Any) -> None:
    kinds = {group.Kind.Name(group.kind) for group in message.instance_group}
    if len(kinds) > 1 or kinds & {"KIND_MODEL"}:
        raise refusal(
            folder, f"{CONFIG}: instance_group has to be of one kind, KIND_CPU, KIND_GPU or "
            "KIND_AUTO", "NotServed",
        )
    if message.optimization.graph.level not in (-1, 0, 1, 2):
        raise refusal(folder, f"{CONFIG}: optimization.graph.level has to be -1, 0, 1 or 2")
    if message.max_batch_size < 0:
        raise refusal(folder, f"{CONFIG}: max_batch_size has to be 0 or more")
    if message.backend == ONNX:
        for name in message.parameters:
            if name not in ONNX_PARAMETERS:
                known = ", ".join(sorted(ONNX_PARAMETERS))
                raise refusal(
                    folder, f"{CONFIG}: the parameter '{name}' is not served here; there are "
                    f"{known}", "NotServed",
                )


def _tensor(folder: Path, message: Any) -> Tensor:
    datatype = datatype_of(message)
    if not message.name or datatype in ("INVALID", "BF16"):
        raise refusal(
            folder, f"{CONFIG}: '{message.name}': data_type is "
            + ("missing" if datatype == "INVALID" else f"{datatype}, which is not served here")
        )
    reshape = tuple(message.reshape.shape) if message.HasField("reshape") else None
    if reshape is not None and sum(size < 0 for size in reshape) > 1:
        raise refusal(folder, f"{CONFIG}: '{message.name}': reshape has more than one size of -1")
    return Tensor(
        message.name, datatype, tuple(message.dims), reshape,
        bool(getattr(message, "optional", False)),
    )


def _with_numbers(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _with_numbers(inner, one) for inner, one in value.items()}
    if isinstance(value, list):
        return [_with_numbers(name, one) for one in value]
    return int(value) if name in _NUMBERS and isinstance(value, str) else value
