"""The protocol's types of tensors as numpy's, and what each may hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from inferay.errors import InvalidInput

#: numpy's types by the protocol's names. `BYTES` are `bytes` objects.
DTYPES: dict[str, Any] = {
    "BOOL": numpy.bool_, "UINT8": numpy.uint8, "UINT16": numpy.uint16, "UINT32": numpy.uint32,
    "UINT64": numpy.uint64, "INT8": numpy.int8, "INT16": numpy.int16, "INT32": numpy.int32,
    "INT64": numpy.int64, "FP16": numpy.float16, "FP32": numpy.float32, "FP64": numpy.float64,
    "BYTES": numpy.object_,
}  # fmt: skip

_BY_DTYPE = {numpy.dtype(dtype): name for name, dtype in DTYPES.items()}


def datatype_of(array: Any) -> str:
    """Return what the protocol calls an array's type, or "" where it has no name for it."""
    return "BYTES" if array.dtype.kind in "SU" else _BY_DTYPE.get(array.dtype, "")


def from_values(name: str, values: Any, datatype: str, shape: Sequence[int] | None = None) -> Any:
    """Return an array of JSON's values, nested or flat; nothing is rounded or read out of a text.

    Args:
        name: Of the tensor, for errors.
        values: Numbers, booleans or texts.
        datatype: The protocol's name of the type.
        shape: By default that of the values.

    Raises:
        InvalidInput: They are of another type, or too many or too few.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidInput(f"input '{name}': there is no datatype '{datatype}'", target=name)
    try:
        if datatype == "BYTES":
            found = numpy.array(values, numpy.object_)
            flat = [_bytes_of(name, value) for value in found.ravel()]
            made = numpy.empty(len(flat), numpy.object_)
            made[:] = flat
            found = made.reshape(found.shape)
        else:
            found = _numbers(name, numpy.array(values), datatype, numpy.dtype(dtype))
    except (ValueError, OverflowError) as error:   # rows of different lengths, a huge number
        raise InvalidInput(f"input '{name}': {error}", target=name) from None
    return found if shape is None else shaped(name, found, shape)


def shaped(name: str, array: Any, shape: Sequence[int]) -> Any:
    """Return the array in a shape.

    Raises:
        InvalidInput: It has more or fewer elements.
    """
    is_shape = isinstance(shape, Sequence) and not isinstance(shape, str) and all(
        isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape
    )
    if not is_shape:
        raise InvalidInput(f"input '{name}': shape has to be a list of sizes", target=name)
    wanted = 1
    for size in shape:
        wanted *= size
    if array.size != wanted:
        raise InvalidInput(
            f"input '{name}' got {array.size} elements for shape {list(shape)}, which has {wanted}",
            target=name,
        )
    return array.reshape(shape)


def _numbers(name: str, found: Any, datatype: str, dtype: Any) -> Any:
    if found.size == 0:
        return found.astype(dtype)
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if found.dtype.kind not in kinds:
        raise InvalidInput(
            f"input '{name}': values of type {found.dtype} are no {datatype}", target=name
        )
    if dtype.kind in "iu":
        bounds = numpy.iinfo(dtype)
        if int(found.min()) < bounds.min or int(found.max()) > bounds.max:
            raise InvalidInput(
                f"input '{name}': a value is out of the range of {datatype}", target=name
            )
    return found.astype(dtype)


def _bytes_of(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise InvalidInput(
        f"input '{name}': a value of type {type(value).__name__} is no BYTES", target=name
    )
