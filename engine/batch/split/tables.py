"""Rows of a file as a pandas or Arrow table, with the types that the whole file has.

A slice alone does not show a column's type: integers where the whole file has one decimal, digits
where it has text elsewhere. So each file that is cut has *types*, found once from samples all over
it (from all of it up to `SAMPLE_BYTES`), and every slice is read with them. A slice with a value
that does not fit is read with the type that it needs: what pandas gives for the slice alone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from inferay.engine.batch.split.formats import Format
from inferay.engine.batch.split.slices import DIALECTS, without_blank_lines

if TYPE_CHECKING:
    import pandas
    import pyarrow

    Table: TypeAlias = pandas.DataFrame | pyarrow.Table

#: Columns and their types, as the manifest keeps them: for pandas pairs of name and dtype, for
#: Arrow the schema in hex.
Types = Any

#: How much of a file is read for its types; a file up to this size has the types of all its rows.
SAMPLE_BYTES = 16 << 20

#: Where no column has a declared type.
NO_TYPES: Mapping[str, str] = MappingProxyType({})

_DELIMITERS = {"csv": ",", "tsv": "\t"}


def text_table(
    kind: str, form: Format, prefix: bytes, text: bytes, types: Types | None = None,
    column_types: Mapping[str, str] = NO_TYPES, *, is_sample: bool = False,
) -> Table:
    """Return records of a text file as a table.

    Args:
        kind: `pandas` or `pyarrow`.
        form: `csv`, `tsv` or `jsonl`.
        prefix: For CSV, the file up to the end of its first row. That row is read and left out:
            it is what decides how many fields a row has.
        text: Whole records.
        types: Of the file, if it was cut.
        column_types: The dtypes that pandas reads columns with, where all values have them.
        is_sample: Leave out records that cannot be read: reading their slice will name them.
    """
    if kind == "pyarrow":
        return _arrow_text(form, prefix, text, types, is_sample=is_sample)
    if types is not None:
        types = [[name, column_types.get(name, dtype)] for name, dtype in types]
    if form == "jsonl":
        frame = _cast(_json_frame(text, is_sample=is_sample), column_types)
        return conformed(frame, types)
    frame = _csv_frame(form, prefix + text, types, column_types, is_sample=is_sample)
    frame = frame.iloc[1:]
    return conformed(frame if has_index(frame) else frame.reset_index(drop=True), types)


def types_of(table: Table) -> Types:
    """Return the table's types, for `text_table`."""
    if hasattr(table, "schema"):
        return table.schema.serialize().to_pybytes().hex()
    return [[name, str(dtype)] for name, dtype in table.dtypes.items()]


def has_index(frame: pandas.DataFrame) -> bool:
    """Return whether the index is a column of the file, and not just the rows' numbers."""
    import pandas

    return not isinstance(frame.index, pandas.RangeIndex)


def _csv_frame(
    form: Format, data: bytes, types: Types | None, column_types: Mapping[str, str], *,
    is_sample: bool,
) -> pandas.DataFrame:
    import pandas

    options: dict[str, Any] = {"sep": _DELIMITERS[form], "low_memory": False}
    if is_sample:
        options |= {"on_bad_lines": "skip", "encoding_errors": "replace"}
    frame: pandas.DataFrame
    if types is None:
        try:
            frame = pandas.read_csv(io.BytesIO(data), dtype=dict(column_types), **options)
        except pandas.errors.ParserError:
            raise
        except ValueError:   # a value that is none of its column's type: the model says which
            texts = {name: dtype for name, dtype in column_types.items() if dtype == "str"}
            frame = _cast(pandas.read_csv(io.BytesIO(data), dtype=texts, **options), column_types)
        return frame
    # By number: where a name stands twice, pandas takes the type of the first for the others too.
    options |= {"header": 0, "names": [str(at) for at in range(len(types))]}
    # What a float or a text looks like, only its text says: 0.1 is not 1e-1, nor 007 a 7.
    pinned = {
        str(at): dtype for at, (name, dtype) in enumerate(types)
        if dtype in ("float64", "str") or name in column_types
    }
    try:
        frame = pandas.read_csv(io.BytesIO(data), dtype=pinned, **options)
    except pandas.errors.ParserError:
        raise
    except ValueError:   # text where all samples had floats
        texts = {at: dtype for at, dtype in pinned.items() if dtype == "str"}
        frame = pandas.read_csv(io.BytesIO(data), dtype=texts, **options)
    frame.columns = pandas.Index([name for name, _ in types])
    return _cast(frame, column_types)


def _cast(frame: pandas.DataFrame, column_types: Mapping[str, str]) -> pandas.DataFrame:
    """Return the frame with numbers of the declared types, in columns whose values have them."""
    import numpy as np

    casts = {}
    for name, dtype in column_types.items():
        if dtype == "str" or name not in frame.columns:
            continue
        found = frame[name]
        if not isinstance(found.dtype, np.dtype) or found.dtype.kind not in "iuf":
            continue
        if found.dtype != dtype and (dtype.startswith("float") or _is_in(found, dtype)):
            casts[name] = dtype
    return frame.astype(casts) if casts else frame


def _is_in(values: pandas.Series, dtype: str) -> bool:
    """Return whether integers of the type hold all the values."""
    import numpy as np

    if values.dtype.kind == "f":
        return False   # as MLflow has it: 1.0 is no integer
    bounds = np.iinfo(dtype)
    return bool(values.empty or (values.min() >= bounds.min and values.max() <= bounds.max))


def _json_frame(text: bytes, *, is_sample: bool) -> pandas.DataFrame:
    import pandas

    rows = []
    for line in text.split(b"\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"a line of JSON Lines has to be an object, not {line[:100]!r}")
        except ValueError:   # UnicodeDecodeError too
            if not is_sample:
                raise
            continue
        rows.append(row)
    return pandas.DataFrame(rows)


def conformed(frame: pandas.DataFrame, types: Types | None) -> pandas.DataFrame:
    """Return the frame with the file's columns and, where its values allow, their types."""
    import numpy as np

    if types is None:
        return frame
    if any(name not in frame.columns for name, _ in types):
        names = [name for name, _ in types]
        frame = frame.reindex(columns=[*names, *(c for c in frame.columns if c not in set(names))])
    casts: dict[Any, str] = {}
    for name, dtype in types:
        found = frame[name].dtype
        is_number = isinstance(found, np.dtype) and found.kind in "iufb"
        is_wider = is_number and dtype in ("float64", "uint64", "object")
        is_empty = dtype in ("str", "float64") and frame[name].isna().all()
        if str(found) != dtype and (is_wider or is_empty):
            casts[name] = dtype
    return frame.astype(casts, errors="ignore") if casts else frame


def _arrow_text(
    form: Format, prefix: bytes, text: bytes, types: Types | None, *, is_sample: bool
) -> pyarrow.Table:
    import pyarrow

    schema = types and pyarrow.ipc.read_schema(pyarrow.py_buffer(bytes.fromhex(types)))
    try:
        return _arrow_read(form, prefix, text, schema, is_sample=is_sample)
    except pyarrow.ArrowInvalid:
        if schema is None:
            raise
        # A value does not fit the types of the samples.
        return _arrow_read(form, prefix, text, None, is_sample=False)


def _arrow_read(
    form: Format, prefix: bytes, text: bytes, schema: pyarrow.Schema | None, *, is_sample: bool
) -> pyarrow.Table:
    import pyarrow
    from pyarrow import csv
    from pyarrow import json as arrow_json

    known = {} if schema is None else {
        field.name: field.type for field in schema if not pyarrow.types.is_null(field.type)
    }
    if form == "jsonl":
        options = arrow_json.ParseOptions(
            explicit_schema=pyarrow.schema(list(known.items())) if known else None
        )
        read = arrow_json.ReadOptions(use_threads=False, block_size=len(text) + 1)
        return arrow_json.read_json(io.BytesIO(text), read, options)
    delimiter, blanks = _DELIMITERS[form], DIALECTS[form].blanks.decode() + "\r\n"
    # Arrow takes a line of blanks for a row. With two columns or more it is an invalid one, left
    # out below; of one column, which has no delimiter but in quotes, it is cut out before.
    if b'"' in prefix or delimiter.encode() not in prefix:
        text = without_blank_lines(text, form)
    data = without_blank_lines(prefix, form) + text
    return csv.read_csv(
        io.BytesIO(data),
        csv.ReadOptions(use_threads=False, block_size=len(data) + 1),
        csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True,
            invalid_row_handler=lambda row: (
                "skip" if is_sample or not row.text.strip(blanks) else "error"
            ),
        ),
        csv.ConvertOptions(column_types=known),
    ).slice(1)
