"""The Open Inference Protocol over gRPC, as the edge hands it on.

HAProxy takes gRPC's HTTP/2 and passes it on as HTTP/1.1, with the trailers of the answer. So one
port, one set of rules and one app serve both protocols, and a call is a body of one message: its
length in five bytes, then the protobuf of `tritonclient`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from inferay.engine.scoring.triton.tensors import datatype_of, from_values
from inferay.errors import InvalidInput
from inferay.serve.server.http import Answer, Headers, Request
from inferay.serve.server.oip_json import from_bytes, inflate, to_bytes

SERVICE = "/inference.GRPCInferenceService/"

#: Codes of gRPC.
INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED, INTERNAL = 3, 5, 12, 13

_TYPE = b"application/grpc"

#: The field of a tensor's values by its type.
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def message_in(request: Request, method: str) -> Any:
    """Return the message of a call.

    Raises:
        InvalidInput: The body is none.
    """
    body = request.body
    if len(body) < 5 or len(body) != 5 + struct.unpack_from(">I", body, 1)[0]:
        raise InvalidInput("the body of a call has to be one message")
    data = body[5:]
    if body[0]:
        data = inflate(data, request.header(b"grpc-encoding") or "identity")
    message = getattr(service_pb2, f"{method}Request")()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise InvalidInput(f"the message is no {method}Request: {error}") from None
    return message


def answer(message: Any) -> Answer:
    """Return the answer of a call that went well."""
    data = message.SerializeToString()
    return _answer(struct.pack(">BI", 0, len(data)) + data, [(b"grpc-status", b"0")])


def failure(code: int, said: str) -> Answer:
    """Return the answer of a call that did not."""
    return _answer(b"", [
        (b"grpc-status", str(code).encode()),
        (b"grpc-message", quote(said, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()),
    ], has_failed=code == INTERNAL)


def inputs_of(message: Any) -> dict[str, Any]:
    """Return the tensors of a ModelInferRequest.

    Raises:
        InvalidInput: They are wrong, or ask what is not served here.
    """
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise InvalidInput(
            f"there are {len(message.inputs)} inputs and {len(raw)} raw_input_contents"
        )
    found: dict[str, Any] = {}
    for number, one in enumerate(message.inputs):
        if one.name in found:
            raise InvalidInput(f"input '{one.name}' is given twice", target=one.name)
        if "shared_memory_region" in one.parameters:
            raise InvalidInput(
                f"input '{one.name}': shared memory is not served here; send the data",
                target=one.name,
            )
        shape = list(one.shape)
        if raw and one.HasField("contents"):
            raise InvalidInput(f"input '{one.name}' has both contents and raw_input_contents")
        if raw:
            found[one.name] = from_bytes(one.name, raw[number], one.datatype, shape)
        else:
            values = list(getattr(one.contents, _CONTENTS.get(one.datatype, "bytes_contents")))
            found[one.name] = from_values(one.name, values, one.datatype, shape)
    return found


def parameters_in(message: Any) -> dict[str, Any]:
    """Return a ModelInferRequest's parameters that are the client's own."""
    return {
        name: getattr(one, one.WhichOneof("parameter_choice"))
        for name, one in message.parameters.items()
        if name not in ("priority", "timeout") and one.WhichOneof("parameter_choice")
    }


def outputs_in(message: Any) -> tuple[str, ...]:
    """Return the names of the outputs that a ModelInferRequest asks for; () for all.

    Raises:
        InvalidInput: It asks what is not served here.
    """
    for one in message.outputs:
        for name in ("classification", "shared_memory_region"):
            if name in one.parameters and one.parameters[name].WhichOneof("parameter_choice"):
                raise InvalidInput(f"output '{one.name}': {name} is not served here", target=name)
    return tuple(one.name for one in message.outputs)


def infer_response(
    asked: Any, name: str, version: str, outputs: Mapping[str, Any]
) -> Any:
    """Return the ModelInferResponse with a model's outputs."""
    response = service_pb2.ModelInferResponse(model_name=name, model_version=version, id=asked.id)
    for output, array in outputs.items():
        response.outputs.add(
            name=output, datatype=datatype_of(array), shape=list(numpy.shape(array))
        )
        response.raw_output_contents.append(to_bytes(array))
    return response


def _answer(body: bytes, trailers: Headers, *, has_failed: bool = False) -> Answer:
    return Answer(200, body, _TYPE, has_failed=has_failed, trailers=trailers)
