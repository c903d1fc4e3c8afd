"""Which files have rows, and which are passed over, told by their names."""

from __future__ import annotations

from typing import Literal

from inferay.errors import InvalidInput

Format = Literal["csv", "tsv", "jsonl", "parquet"]

FORMATS: dict[str, Format] = {
    "csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet",
    "pq": "parquet",
}  # fmt: skip

#: Endings of compressed text, which has no place to begin reading but the first byte.
COMPRESSED = frozenset({"gz", "bz2", "zst", "xz", "lz4", "snappy", "zip"})


def is_hidden(path: str) -> bool:
    """Return whether other programs leave the file, or a folder that it is in, beside the data.

    As for Spark and Arrow: a name below the input's root begins with `_` or `.`.
    """
    return path.startswith(("_", ".")) or "/_" in path or "/." in path


def format_of(path: str) -> Format:
    """Return the format of a file.

    Raises:
        InvalidInput: It has no rows that we can read; nothing is left out silently.
    """
    name = path.rpartition("/")[2]
    ending = name.lower().rpartition(".")[2]
    if ending in FORMATS:
        return FORMATS[ending]
    if ending in COMPRESSED:
        raise InvalidInput(
            f"'{path}' is compressed: its rows cannot be counted or cut without unpacking all of "
            "it; unpack it, write Parquet, or let run() take paths",
            code="InputNotTable", target=path,
        )
    raise InvalidInput(
        f"run() takes tables, but '{path}' is no .csv, .tsv, .jsonl or .parquet file; take it out "
        "of the input, or let run() take paths (split: file, and no annotation of a table)",
        code="InputNotTable", target=path,
    )
