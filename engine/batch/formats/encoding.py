"""What an encoder is, and the encoder of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from inferay.engine.batch.formats.columns import Columns
from inferay.engine.batch.formats.sources import Source
from inferay.engine.batch.rows import to_rows


@dataclass(frozen=True)
class Encoded:
    """The rows of one mini-batch.

    Attributes:
        rows: How many.
        content: What `Encoder.write` takes.
        columns: Their names and types, where the format has any.
    """

    rows: int
    content: Any
    columns: Columns = ()


class Encoder(Protocol):
    """Turns results into bytes of a segment. A *run* of mini-batches is committed as a whole.

    Attributes:
        names_sources: Whether rows say which file they are of; if not, `encode` needs no sources.
    """

    names_sources: bool

    def encode(self, result: Any, sources: Sequence[Source]) -> Encoded:
        """Return the rows of what `run()` returned; changes nothing.

        Raises:
            RowsError: It has no rows, or rows that the format cannot hold.
        """

    def write(self, encoded: Encoded) -> bytes:
        """Return the bytes that these rows add to the run."""

    def end_run(self) -> bytes:
        """Return the bytes that end the run; the next one stands for itself."""


class TextEncoder:
    """Azure's `append_row`; or no text at all, where rows only count."""

    names_sources = False

    def __init__(self, *, is_text_wanted: bool) -> None:
        self._is_text_wanted = is_text_wanted

    def encode(self, result: Any, sources: Sequence[Source]) -> Encoded:
        """See `Encoder.encode`."""
        return Encoded(*to_rows(result, is_text_wanted=self._is_text_wanted))

    def write(self, encoded: Encoded) -> bytes:
        """See `Encoder.write`."""
        text: bytes = encoded.content
        return text

    def end_run(self) -> bytes:
        """See `Encoder.end_run`."""
        return b""
