"""Which files have rows, told by their names."""

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


def format_of(path: str) -> Format | None:
    """Return the format of a file, or None for one that other programs leave beside the data.

    These are passed over as Spark and Arrow do: names that begin with `_` or `.`.

    Raises:
        InvalidInput: It has no rows that we can read; nothing is left out silently.
    """
    name = path.rpartition("/")[2]
    if name.startswith(("_", ".")):
        return None
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
