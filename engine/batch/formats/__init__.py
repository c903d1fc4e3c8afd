"""The formats of a job's rows: text (Azure's `append_row`), JSONL and Parquet.

The ending of `output_file_name` chooses: `.parquet`, `.jsonl`, and text for every other. A worker's
encoder turns what `run()` returned into bytes of its segment; the driver turns the committed bytes,
in order, into the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from inferay.engine.batch.formats.columns import Columns
from inferay.engine.batch.formats.encoding import Encoder, TextEncoder
from inferay.errors import InvalidInput

#: Endings that promise a format that is not written.
_UNWRITTEN = (".json", ".arrow", ".feather", ".pq", ".orc", ".avro")


def format_of(file_name: str) -> str:
    """Return `parquet`, `jsonl` or `text`."""
    ending = os.path.splitext(file_name)[1].lower()
    return {".parquet": "parquet", ".jsonl": "jsonl"}.get(ending, "text")


def check_format(file_name: str) -> None:
    """Check that rows can be written to a file of this name.

    Raises:
        InvalidInput: Its ending promises a format that is not written.
    """
    ending = os.path.splitext(file_name)[1].lower()
    if ending in _UNWRITTEN:
        raise InvalidInput(
            f"output_file_name: rows are not written as {ending}; give a name that ends in .csv, "
            ".jsonl or .parquet",
            target="output_file_name",
        )


def make_encoder(output_action: str, file_name: str, flavor: str = "") -> Encoder:
    """Return what turns results of `run()`, or of a model without code, into bytes; one per worker.

    PyArrow takes 0.3 s to import: only Parquet's encoder does.
    """
    kind = format_of(file_name) if output_action == "append_row" else "text"
    if kind == "parquet":
        from inferay.engine.batch.formats.parquet import ParquetEncoder

        return ParquetEncoder()
    if kind == "jsonl":
        from inferay.engine.batch.formats.jsonl import JsonEncoder

        return JsonEncoder()
    if flavor and output_action == "append_row":
        from inferay.engine.batch.formats.predictions import PredictionsEncoder

        return PredictionsEncoder()
    return TextEncoder(is_text_wanted=output_action == "append_row")


def final_bytes(
    file_name: str, committed: Iterator[bytes], columns: Columns
) -> Iterator[bytes]:
    """Return the file's bytes, made of the committed bytes in order.

    Args:
        file_name: Chooses the format.
        committed: What encoders wrote.
        columns: Of all of them together, where the format has columns.
    """
    if format_of(file_name) != "parquet":
        return committed
    from inferay.engine.batch.formats.parquet_file import parquet_bytes

    return parquet_bytes(committed, columns)
