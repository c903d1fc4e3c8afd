"""Which files have rows, and which are passed over, told by their names."""

from __future__ import annotations

from typing import Literal

from inferay.errors import InvalidInput

Format = Literal["csv", "tsv", "jsonl", "parquet", "image"]

FORMATS: dict[str, Format] = {
    "csv": "csv", "tsv": "tsv", "jsonl": "jsonl", "ndjson": "jsonl", "parquet": "parquet",
    "pq": "parquet", "pqt": "parquet",
}  # fmt: skip

#: What a model without code takes besides: each file is one row.
IMAGES = frozenset({"png", "jpg", "jpeg", "tif", "tiff", "bmp", "gif"})

#: Endings of compressed text, which has no place to begin reading but the first byte.
COMPRESSED = frozenset({"gz", "bz2", "zst", "xz", "lz4", "snappy", "zip"})


def is_hidden(path: str) -> bool:
    """Return whether other programs leave the file, or a folder that it is in, beside the data.

    As for Spark and Arrow: a name below the input's root begins with `_` or `.`.
    """
    return path.startswith(("_", ".")) or "/_" in path or "/." in path


def format_of(path: str, *, has_images: bool = False) -> Format:
    """Return the format of a file.

    Args:
        path: Its name tells.
        has_images: Whether images are taken too.

    Raises:
        InvalidInput: It has no rows that we can read; nothing is left out silently.
    """
    name = path.rpartition("/")[2]
    ending = name.lower().rpartition(".")[2]
    if ending in FORMATS:
        return FORMATS[ending]
    if has_images and ending in IMAGES:
        return "image"
    if ending in COMPRESSED:
        raise InvalidInput(
            f"'{path}' is compressed: its rows cannot be counted or cut without unpacking all of "
            "it; unpack it, write Parquet, or let run() take paths",
            code="InputNotTable", target=path,
        )
    if has_images:
        raise InvalidInput(
            f"'{path}' is no table (.csv, .tsv, .jsonl, .parquet) and no image (.png, .jpg, .tif, "
            ".bmp, .gif), as a model without a scoring script takes; take it out of the input, or "
            "give the deployment a scoring script that reads it",
            code="InputNotTable", target=path,
        )
    raise InvalidInput(
        f"run() takes tables, but '{path}' is no .csv, .tsv, .jsonl or .parquet file; take it out "
        "of the input, or let run() take paths (split: file, and no annotation of a table)",
        code="InputNotTable", target=path,
    )
