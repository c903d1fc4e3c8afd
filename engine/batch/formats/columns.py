"""Names and types of columns, and what they are together: values without PyArrow.

A type is a name (`int64`, `string`) or a list: `["list", type]`, `["struct", [[name, type], …]]`,
`["map", type, type]`, `["timestamp", unit, zone]`, `["time", unit]`, `["duration", unit]`,
`["decimal", bits, scale]`. Types form a semilattice, so that their union does not depend on how
rows were divided into mini-batches, nor on who scored which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferay.errors import JobError

Type = str | list[Any]

#: ((name, type), …), in the order in which the names first came.
Columns = tuple[tuple[str, Type], ...]

#: Columns at most: a dict with a key per file would otherwise make a column per file.
COLUMNS_MAX = 2_000

#: What a number of a type also fits in, exactly. `wide` integers lie beyond the 2**53 up to which
#: a double holds each integer.
_WIDER = {
    "uint8": ("uint16", "int16"), "uint16": ("uint32", "int32"), "uint32": ("uint64", "int64"),
    "uint64": ("uint64 wide", "int64"), "int8": ("int16",), "int16": ("int32",),
    "int32": ("int64",), "int64": ("int64 wide", "double"), "halffloat": ("float",),
    "float": ("double",), "double": (), "int64 wide": (), "uint64 wide": (),
}
_UNITS = ("s", "ms", "us", "ns")
_TIMES = ("timestamp", "time", "duration")


class TypesDifferError(ValueError):
    """Raised when two types have no common one; says which two."""

    def __init__(self, one: Type, other: Type) -> None:
        super().__init__(f"{describe(one)} and {describe(other)}")
        self.one, self.other = one, other


def union(one: Columns, other: Columns, *, is_lenient: bool = False) -> Columns:
    """Return the columns that hold the rows of both.

    Args:
        one: Come first.
        other: Its new names come after.
        is_lenient: Make text of what has no common type.

    Raises:
        JobError: A column has types that have no common one, or there are too many columns.
    """
    if one == other:
        return one
    found = dict(one)
    for name, kind in other:
        try:
            found[name] = join(found[name], kind) if name in found else kind
        except TypesDifferError as error:
            if not is_lenient:
                raise JobError(
                    f"column '{name}' is {describe(error.one)} in some rows and "
                    f"{describe(error.other)} in others; a column of a Parquet file has one type: "
                    "let run() return one, or give output_file_name the ending .jsonl",
                    code="ColumnTypesDiffer", target=name,
                ) from None
            found[name] = "string"
    if len(found) > COLUMNS_MAX:
        raise JobError(
            f"rows have more than {COLUMNS_MAX} columns, the last one '{next(reversed(found))}'; "
            "return an array for a column of lists, or a dict with the same keys for each row",
            code="TooManyColumns",
        )
    return tuple(found.items())


def join(one: Type, other: Type) -> Type:
    """Return the least type that holds the values of both.

    Raises:
        TypesDifferError: There is none.
    """
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if isinstance(one, str) and isinstance(other, str):
        return _join_numbers(one, other)
    if isinstance(one, list) and isinstance(other, list) and one[0] == other[0]:
        return _join_nested(one, other)
    for decimal, whole in ((one, other), (other, one)):
        is_decimal = isinstance(decimal, list) and decimal[0] == "decimal"
        if is_decimal and isinstance(whole, str) and "int" in whole:
            return decimal
    raise TypesDifferError(one, other)


def describe(kind: Type) -> str:
    """Return the type in a user's words."""
    if isinstance(kind, str):
        return f"{kind.removesuffix(' wide')}{' (beyond 2**53)' if 'wide' in kind else ''}"
    if kind[0] == "struct":
        return "struct<" + ", ".join(f"{name}: {describe(one)}" for name, one in kind[1]) + ">"
    inner = [describe(one) if isinstance(one, (str, list)) else str(one) for one in kind[1:] if one]
    return f"{kind[0]}<{', '.join(inner)}>"


def to_json(columns: Columns) -> list[Any]:
    """Return the columns as a journal keeps them."""
    return [list(column) for column in columns]


def from_json(data: Sequence[Any]) -> Columns:
    """Return the columns that `to_json` described."""
    return tuple((name, kind) for name, kind in data)


def _join_numbers(one: str, other: str) -> Type:
    common = _above(one) & _above(other)
    if not common:
        raise TypesDifferError(one, other)
    return max(common, key=lambda name: len(_above(name) & common))


def _above(name: str) -> set[str]:
    found = {name} if name in _WIDER else set()
    for wider in _WIDER.get(name, ()):
        found |= _above(wider)
    return found


def _join_nested(one: list[Any], other: list[Any]) -> Type:
    kind = one[0]
    if kind == "list":
        return ["list", join(one[1], other[1])]
    if kind == "map":
        return ["map", join(one[1], other[1]), join(one[2], other[2])]
    if kind == "struct":
        found = dict(one[1])
        for name, field in other[1]:
            found[name] = join(found[name], field) if name in found else field
        return ["struct", [[name, field] for name, field in found.items()]]
    if kind == "decimal":
        return ["decimal", max(one[1], other[1]), max(one[2], other[2])]
    unit = max(one[1], other[1], key=_UNITS.index)
    if kind != "timestamp":
        return [kind, unit]
    if (one[2] is None) != (other[2] is None):
        raise TypesDifferError(one, other)
    return [kind, unit, one[2] if one[2] == other[2] else "UTC"]
