"""The Open Inference Protocol over HTTP: a request's tensors, and an answer's.

Source: KServe's Open Inference Protocol v2, and Triton's extension for binary tensors: JSON whose
length a header says, followed by the tensors' bytes.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy

from inferay.engine.scoring.triton.tensors import DTYPES, datatype_of, from_values, shaped
from inferay.errors import InvalidInput
from inferay.serve.server.http import JSON, Answer, Request
from inferay.serve.server.limits import BODY_BYTES_MAX

_LENGTH = b"inference-header-content-length"
_OCTETS = b"application/octet-stream"

#: How many bits zlib takes a stream with either header for.
_WINDOW_BITS = {"gzip": 31, "deflate": 15}

#: Parameters that are the server's, not the model's.
_OWN = frozenset(("binary_data_output", "priority", "timeout"))


@dataclass(frozen=True)
class Asked:
    """What a client wants of a model.

    Attributes:
        id: The client's name for it, or "".
        inputs: Arrays by their names.
        outputs: The names of those that it wants; () for all.
        binary: Which of them go out as bytes, where they say so.
        is_binary: Whether those that say nothing of it go out as bytes.
        parameters: The client's own.
    """

    inputs: Mapping[str, Any]
    id: str = ""
    outputs: tuple[str, ...] = ()
    binary: Mapping[str, bool] = field(default_factory=dict)
    is_binary: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)


def asked_in(request: Request) -> Asked:
    """Return what a request's body asks.

    Raises:
        InvalidInput: It is not of the protocol, or asks what is not served here.
    """
    body = _inflated(request.body, request.header(b"content-encoding"))
    length, tail = request.header(_LENGTH), memoryview(b"")
    if length is not None:
        if not _is_number(length) or int(length) > len(body):
            raise InvalidInput(
                f"Inference-Header-Content-Length: {length[:20]} is no length of a body of "
                f"{len(body)} bytes"
            )
        tail = memoryview(body)[int(length):]
        body = body[:int(length)]
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:   # UnicodeDecodeError too
        said = "it is empty" if not body else str(error)
        raise InvalidInput(f"failed to parse the request JSON buffer: {said}") from None
    inputs = found.get("inputs") if isinstance(found, dict) else None
    if not isinstance(inputs, list):
        raise InvalidInput("the body has to be a JSON object with a list of inputs")
    parameters = _object(found, "parameters")
    outputs, id = found.get("outputs", []), found.get("id", "")
    if not isinstance(outputs, list):
        raise InvalidInput("outputs: expected a list")
    if not isinstance(id, str):
        raise InvalidInput("id: expected a text")
    wanted = [_object(one) for one in outputs]
    for one in wanted:
        _check_output(one)
    return Asked(
        _tensors(inputs, tail), id, tuple(_name(one) for one in wanted),
        {
            _name(one): _flag(own, "binary_data")
            for one in wanted if "binary_data" in (own := _object(one, "parameters"))
        },
        _flag(parameters, "binary_data_output"),
        {name: value for name, value in parameters.items() if name not in _OWN},
    )


def is_raw(request: Request) -> bool:
    """Return whether a body is nothing but the bytes of the only input."""
    return request.header(_LENGTH) == "0"


def raw_in(request: Request, name: str, datatype: str, dims: Sequence[int]) -> Asked:
    """Return what such a body asks.

    Args:
        request: With the bytes.
        name: Of the input.
        datatype: Of the input.
        dims: Its shape; one -1 is what the bytes make it.

    Raises:
        InvalidInput: They are not of the input's size.
    """
    body = _inflated(request.body, request.header(b"content-encoding"))
    size = numpy.dtype(DTYPES[datatype]).itemsize
    shape, known = list(dims), 1
    for one in dims:
        known *= one if one >= 0 else 1
    count = len(_texts(name, body)) if datatype == "BYTES" else len(body) // size
    if -1 in shape and known and count % known == 0:
        shape[shape.index(-1)] = count // known
    return Asked({name: from_bytes(name, body, datatype, shape)}, is_binary=True)


def answer_to(asked: Asked, name: str, version: str, outputs: Mapping[str, Any]) -> Answer:
    """Return the answer with a model's outputs."""
    described, pieces = [], []
    for output, array in outputs.items():
        one: dict[str, Any] = {
            "name": output, "datatype": datatype_of(array), "shape": list(array.shape),
        }
        if asked.binary.get(output, asked.is_binary):
            raw = to_bytes(array)
            one["parameters"] = {"binary_data_size": len(raw)}
            pieces.append(raw)
        else:
            one["data"] = _values(output, array)
        described.append(one)
    head: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": described}
    if asked.id:
        head["id"] = asked.id
    body = json.dumps(head).encode()
    if not pieces:
        return Answer(200, body, JSON)
    length = (_LENGTH, str(len(body)).encode())
    return Answer(200, b"".join((body, *pieces)), _OCTETS, [length])


def from_bytes(name: str, raw: Any, datatype: str, shape: Sequence[int]) -> Any:
    """Return the array that a tensor's bytes are.

    Raises:
        InvalidInput: They are not.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidInput(f"input '{name}': there is no datatype '{datatype}'", target=name)
    if datatype == "BYTES":
        return shaped(name, _texts(name, raw), shape)
    size = numpy.dtype(dtype).itemsize
    if len(raw) % size:
        raise InvalidInput(
            f"input '{name}': {len(raw)} bytes are no values of {datatype}", target=name
        )
    # A copy: models write into what they are given, and the bytes may begin anywhere.
    return shaped(name, numpy.frombuffer(raw, dtype).copy(), shape)


def to_bytes(array: Any) -> bytes:
    """Return an array's bytes, as the protocol has them: little-endian, row after row."""
    if datatype_of(array) != "BYTES":
        raw: bytes = numpy.ascontiguousarray(array).tobytes()
        return raw
    pieces: list[bytes] = []
    for one in array.ravel():
        text = one if isinstance(one, bytes) else str(one).encode()
        pieces += (struct.pack("<I", len(text)), text)
    return b"".join(pieces)


def _tensors(inputs: list[Any], tail: memoryview) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in map(_object, inputs):
        name, datatype, shape = _name(one), one.get("datatype"), one.get("shape")
        if name in found:
            raise InvalidInput(f"input '{name}' is given twice", target=name)
        if not isinstance(datatype, str) or not isinstance(shape, list):
            raise InvalidInput(f"input '{name}' has to have a datatype and a shape", target=name)
        parameters = _object(one, "parameters")
        if "shared_memory_region" in parameters:
            raise InvalidInput(
                f"input '{name}': shared memory is not served here; send the data", target=name
            )
        size = parameters.get("binary_data_size")
        if size is not None:
            if "data" in one:
                raise InvalidInput(f"input '{name}' has both data and binary_data_size")
            if type(size) is not int or not 0 <= size <= len(tail):
                raise InvalidInput(
                    f"input '{name}': binary_data_size {size} is not in the body", target=name
                )
            found[name] = from_bytes(name, tail[:size], datatype, shape)
            tail = tail[size:]
        elif "data" in one:
            found[name] = from_values(name, one["data"], datatype, shape)
        else:
            raise InvalidInput(f"input '{name}' has no data", target=name)
    if len(tail):
        raise InvalidInput(f"the body has {len(tail)} bytes that no input's binary_data_size names")
    return found


def _is_number(text: str) -> bool:
    """Return whether it is a number that a body's length may be."""
    return text.isascii() and text.isdigit() and len(text) < 20


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    found = parameters.get(name, False)
    if not isinstance(found, bool):
        raise InvalidInput(f"{name}: expected true or false", target=name)
    return found


def _check_output(one: Mapping[str, Any]) -> None:
    parameters = _object(one, "parameters")
    for name in ("classification", "shared_memory_region"):
        if parameters.get(name):
            raise InvalidInput(f"output '{_name(one)}': {name} is not served here", target=name)


def _values(name: str, array: Any) -> list[Any]:
    flat = array.ravel()
    if datatype_of(array) != "BYTES":
        values: list[Any] = flat.tolist()
        return values
    try:
        return [one.decode() if isinstance(one, bytes) else str(one) for one in flat]
    except UnicodeDecodeError:
        raise InvalidInput(
            f"output '{name}' is no UTF-8, which JSON cannot hold; ask for binary_data"
        ) from None


def _texts(name: str, raw: Any) -> Any:
    found, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise InvalidInput(f"input '{name}': its bytes end within a length", target=name)
        size, = struct.unpack_from("<I", raw, at)
        at += 4
        if at + size > len(raw):
            raise InvalidInput(f"input '{name}': its bytes end within an element", target=name)
        found.append(bytes(raw[at:at + size]))
        at += size
    array = numpy.empty(len(found), numpy.object_)
    array[:] = found
    return array


def _object(value: Any, name: str = "") -> dict[str, Any]:
    found = (value.get(name) or {}) if name else value
    if not isinstance(found, dict):
        raise InvalidInput(f"{name or 'an input or output'}: expected an object")
    return found


def _name(one: Mapping[str, Any]) -> str:
    name = one.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidInput("an input or output has no name")
    return name


def _inflated(body: bytes, encoding: str | None) -> bytes:
    """Return a body as it was before it was compressed; one that grows too large is refused."""
    return body if encoding in (None, "identity") else inflate(body, str(encoding))


def inflate(data: bytes, encoding: str) -> bytes:
    """Return what was compressed by gzip or deflate.

    Raises:
        InvalidInput: It was not, or it is larger than a body may be.
    """
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise InvalidInput(f"the encoding '{encoding[:20]}' is not served here; gzip, deflate are")
    inflater = zlib.decompressobj(bits)
    try:
        found = inflater.decompress(data, BODY_BYTES_MAX)
    except zlib.error as error:
        raise InvalidInput(f"the body is no {encoding}: {error}") from None
    if inflater.unconsumed_tail or not inflater.eof:
        raise InvalidInput(
            f"the body is no whole {encoding}, or larger than {BODY_BYTES_MAX} bytes"
        )
    return found
