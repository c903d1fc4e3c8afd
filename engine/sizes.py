"""The size of a mini-batch as people write it: 10, "64MB", "5000 rows"."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

#: Files or rows of one mini-batch; their paths are one list in memory.
MINI_BATCH_SIZE_MAX = 10_000_000
#: Bytes of one mini-batch, which may be read into memory at once.
MINI_BATCH_BYTES_MAX = 1 << 40

FORMS = f'an integer from 1 to {MINI_BATCH_SIZE_MAX} (files), bytes ("64MB") or rows ("5000 rows")'

_FACTORS = {
    "": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30,
}  # fmt: skip
_TEXT = re.compile(r"\s*(\d{1,15})\s*(?:(rows?)|([KMG]I?)?(B|bytes?))\s*", re.IGNORECASE)


class BatchSize(NamedTuple):
    """How much one mini-batch holds at most."""

    limit: int
    unit: Literal["files", "bytes", "rows"]

    def __str__(self) -> str:
        return f"{self.limit} {self.unit}"


def parse_mini_batch_size(value: object) -> BatchSize | None:
    """Return what an integer or text means, or None if it is no size of a mini-batch.

    `MB` is 10**6 bytes and `MiB` 2**20; case and spaces do not matter.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return BatchSize(value, "files") if 1 <= value <= MINI_BATCH_SIZE_MAX else None
    match = _TEXT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    number, rows, prefix, _ = match.groups()
    if rows:
        count = int(number)
        return BatchSize(count, "rows") if 1 <= count <= MINI_BATCH_SIZE_MAX else None
    count = int(number) * _FACTORS[(prefix or "").upper()]
    return BatchSize(count, "bytes") if 1 <= count <= MINI_BATCH_BYTES_MAX else None
