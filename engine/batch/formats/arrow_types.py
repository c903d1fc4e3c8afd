"""Arrow arrays in the few types that rows are kept in, and as the type of the whole column."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

from inferay.engine.batch.formats.columns import Type

#: Up to here a double holds each integer.
_DOUBLE_INTEGER_MAX = 1 << 53

#: The most common types, which are canonical already.
_AS_THEY_ARE = (pa.string(), pa.float64(), pa.float32(), pa.int64(), pa.bool_(), pa.null())


def canonical(array: pa.Array) -> tuple[pa.Array, Type]:
    """Return the array in one of our types, and which; nothing of its values is lost.

    Large, view, fixed-size and dictionary types become the plain ones, an extension its storage.
    """
    kind = array.type
    if isinstance(kind, pa.UuidType):
        return pa.array([one and str(one) for one in array.to_pylist()], pa.string()), "string"
    if isinstance(kind, pa.BaseExtensionType):
        return canonical(array.storage)
    if pa.types.is_dictionary(kind):
        return canonical(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return canonical(pc.run_end_decode(array))
    if _is_list(kind):
        values, inner = canonical(array.flatten())
        return _list_of(array, values), ["list", inner]
    if pa.types.is_struct(kind):
        parts = [canonical(part) for part in array.flatten()]
        names = [field.name for field in kind]
        found = _struct_of(array, [part for part, _ in parts], names)
        inners = [[name, inner] for name, (_, inner) in zip(names, parts, strict=True)]
        return found, ["struct", inners]
    if pa.types.is_map(kind):
        _, key = canonical(pa.nulls(0, kind.key_type))
        _, item = canonical(pa.nulls(0, kind.item_type))
        return array.cast(to_arrow(["map", key, item])), ["map", key, item]
    found_type = _plain_type(kind)
    if isinstance(found_type, list) or kind not in _AS_THEY_ARE:
        array = array.cast(to_arrow(found_type))
    if found_type in ("int64", "uint64") and _is_wide(array):
        found_type = f"{found_type} wide"
    return array, found_type


def to_arrow(kind: Type) -> pa.DataType:
    """Return the Arrow type of a column."""
    if isinstance(kind, str):
        plain: pa.DataType = pa.type_for_alias(kind.removesuffix(" wide"))
        return plain
    name, *rest = kind
    if name == "list":
        return pa.list_(to_arrow(rest[0]))
    if name == "struct":
        return pa.struct([pa.field(field, to_arrow(inner)) for field, inner in rest[0]])
    if name == "map":
        return pa.map_(to_arrow(rest[0]), to_arrow(rest[1]))
    if name == "decimal":
        bits, scale = rest
        return pa.decimal128(38, scale) if bits == 128 else pa.decimal256(76, scale)
    if name == "timestamp":
        return pa.timestamp(*rest)
    if name == "time":
        return pa.time32(rest[0]) if rest[0] in ("s", "ms") else pa.time64(rest[0])
    return pa.duration(rest[0])


def conform(array: pa.Array, kind: Type) -> pa.Array:
    """Return a canonical array as a type that holds its values, which `join` found."""
    target = to_arrow(kind)
    if array.type == target:
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), target)
    if kind == "string":   # columns whose types had no common one
        return _as_text(array)
    if isinstance(kind, list) and kind[0] == "list" and pa.types.is_list(array.type):
        return _list_of(array, conform(array.flatten(), kind[1]))
    if isinstance(kind, list) and kind[0] == "struct" and pa.types.is_struct(array.type):
        parts = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
        return _struct_of(
            array,
            [conform(parts.get(name, pa.nulls(len(array))), inner) for name, inner in kind[1]],
            [name for name, _ in kind[1]],
        )
    return array.cast(target)


def row_bytes(array: pa.Array) -> pa.Array:
    """Return the size of each value of a canonical array, whatever chunks it came in."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return pc.fill_null(pc.cast(pc.binary_length(array), pa.int64()), 0)
    if _is_list(kind) or pa.types.is_map(kind):
        if pa.types.is_map(kind):   # it has no list functions
            array = array.cast(pa.list_(pa.struct([kind.key_field, kind.item_field])))
        lengths = pc.fill_null(pc.cast(pc.list_value_length(array), pa.int64()), 0)
        ends = pc.cumulative_sum(lengths)
        total = pc.cumulative_sum(row_bytes(array.flatten()))
        total = pa.concat_arrays([pa.array([0], pa.int64()), total])
        return pc.subtract(total.take(ends), total.take(pc.subtract(ends, lengths)))
    if pa.types.is_struct(kind):
        size = pa.repeat(pa.scalar(0, pa.int64()), len(array))
        for part in array.flatten():
            size = pc.add(size, row_bytes(part))
        return size
    width = 0 if pa.types.is_null(kind) else max(1, kind.bit_width // 8)
    return pa.repeat(pa.scalar(width, pa.int64()), len(array))


def _plain_type(kind: pa.DataType) -> Type:
    types = pa.types
    if types.is_large_string(kind) or types.is_string(kind) or types.is_string_view(kind):
        return "string"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind) \
            or types.is_binary_view(kind):
        return "binary"
    if types.is_decimal(kind):
        return ["decimal", 256 if types.is_decimal256(kind) else 128, kind.scale]
    if types.is_timestamp(kind):
        return ["timestamp", kind.unit, kind.tz]
    if types.is_time(kind):
        return ["time", kind.unit]
    if types.is_duration(kind):
        return ["duration", kind.unit]
    if types.is_date(kind):
        return "date32"
    return str(kind)


def _is_wide(array: pa.Array) -> bool:
    ends = pc.min_max(array)
    least, most = ends["min"].as_py(), ends["max"].as_py()
    return most is not None and (
        most > _DOUBLE_INTEGER_MAX or least < -_DOUBLE_INTEGER_MAX
    )


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        or types.is_list_view(kind) or types.is_large_list_view(kind)
    )


def _list_of(array: pa.Array, values: pa.Array) -> pa.Array:
    """Return a list array with the lengths of `array` and these values."""
    lengths = pc.fill_null(pc.cast(pc.list_value_length(array), pa.int64()), 0)
    ends = pc.cumulative_sum(lengths)
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends]).cast(pa.int32())
    return pa.ListArray.from_arrays(offsets, values, mask=array.is_null())


def _struct_of(array: pa.Array, parts: list[pa.Array], names: list[str]) -> pa.Array:
    if not parts:
        return array
    fields = [pa.field(name, part.type) for name, part in zip(names, parts, strict=True)]
    return pa.StructArray.from_arrays(parts, fields=fields, mask=array.is_null())


def _as_text(array: pa.Array) -> pa.Array:
    if pa.types.is_nested(array.type) or pa.types.is_binary(array.type):
        return pa.array(
            [None if one is None else json.dumps(one, default=str) for one in array.to_pylist()],
            pa.string(),
        )
    return array.cast(pa.string())
