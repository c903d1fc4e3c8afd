"""Which file, and which row of it, each returned row is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: Names of the columns that rows get, in Azure's words for its own no-code output.
ROW, FILE = "row", "file"


class Source(NamedTuple):
    """What a unit gave the script; a tuple, for millions of them are made.

    Attributes:
        file: Path relative to the input's root; bytes that are no UTF-8 are surrogates.
        first: Index in the file of the first row, for a table.
        rows: Rows of the table; None for a file that was given by its path.
    """

    file: str
    first: int = 0
    rows: int | None = None


def places(
    sources: Sequence[Source], rows: int
) -> tuple[Sequence[str | None], Sequence[int | None]]:
    """Return the file and the row index of each returned row; None where the count says nothing.

    A table's rows keep their index in the file. A file given by its path has row 0 if there is a
    row for each file, and 0, 1, … if it was alone.
    """
    tables = [source.rows for source in sources if source.rows is not None]
    if len(tables) == len(sources) and sum(tables) == rows:
        files: list[str | None] = []
        indexes: list[int | None] = []
        for source, count in zip(sources, tables, strict=True):
            files += [source.file] * count
            indexes += range(source.first, source.first + count)
        return files, indexes
    if not tables and len(sources) == rows:
        return [source.file for source in sources], [0] * rows
    if not tables and len(sources) == 1:
        return [sources[0].file] * rows, range(rows)
    if len({source.file for source in sources}) == 1:
        return [sources[0].file] * rows, [None] * rows
    return [None] * rows, [None] * rows


def valid_text(text: str) -> str:
    r"""Return the text with bytes that are no UTF-8 as `\xNN`, for formats that hold only UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
