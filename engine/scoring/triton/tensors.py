"""The protocol's types of tensors as numpy's, and what each may hold."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
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
        values: A list of numbers, booleans or texts.
        datatype: The protocol's name of the type.
        shape: By default that of the values.

    Raises:
        InvalidInput: They are of another type, or too many or too few.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidInput(f"input '{name}': there is no datatype '{datatype}'", target=name)
    if not isinstance(values, list):
        raise InvalidInput(f"input '{name}': its data has to be a list", target=name)
    flat, own = _flat(name, values)
    if datatype == "BYTES":
        found = numpy.empty(len(flat), numpy.object_)
        found[:] = [_bytes_of(name, value) for value in flat]
    else:
        found = _numbers(name, flat, datatype, numpy.dtype(dtype))
    return shaped(name, found, own if shape is None else shape)


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
    try:
        return array.reshape(shape)
    except ValueError as error:   # of more dimensions, or larger, than numpy knows
        raise InvalidInput(f"input '{name}': shape: {error}", target=name) from None


def _flat(name: str, values: list[Any]) -> tuple[list[Any], list[int]]:
    """Return the values in one list, and the shape that they have as it looks at their firsts."""
    shape = [len(values)]
    while values and isinstance(values[0], list):
        if not all(isinstance(one, list) for one in values):
            raise InvalidInput(f"input '{name}': values beside lists", target=name)
        shape.append(len(values[0]))
        values = list(chain.from_iterable(values))
    return values, shape


def _numbers(name: str, flat: list[Any], datatype: str, dtype: Any) -> Any:
    allowed: tuple[type, ...] = {
        "b": (bool,), "i": (int,), "u": (int,), "f": (int, float)
    }[dtype.kind]
    wrong = set(map(type, flat)).difference(allowed)
    if wrong:
        kind = min(one.__name__ for one in wrong)
        raise InvalidInput(f"input '{name}': a value of type {kind} is no {datatype}", target=name)
    if dtype.kind in "iu" and flat:
        bounds = numpy.iinfo(dtype)
        if min(flat) < bounds.min or max(flat) > bounds.max:
            raise InvalidInput(
                f"input '{name}': a value is out of the range of {datatype}", target=name
            )
    try:
        return numpy.array(flat, dtype)
    except OverflowError as error:   # a whole number that no float holds
        raise InvalidInput(f"input '{name}': {error}", target=name) from None


def _bytes_of(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise InvalidInput(
        f"input '{name}': a value of type {type(value).__name__} is no BYTES", target=name
    )
