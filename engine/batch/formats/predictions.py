"""What a model predicted, as Azure writes it: lines `row,prediction,file`, without a header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferay.engine.batch.formats.encoding import Encoded
from inferay.engine.batch.formats.jsonl import json_text
from inferay.engine.batch.formats.sources import Source, places


class PredictionsEncoder:
    """Turns a table with one column, the predictions, into lines of CSV."""

    names_sources = True

    def encode(self, result: Any, sources: Sequence[Source]) -> Encoded:
        """See `Encoder.encode`."""
        values = result.iloc[:, 0]
        texts = _numbers(values) if values.dtype.kind in "biuf" else _texts(values.tolist())
        files, rows = places(sources, len(texts))
        names = {name: _field(name or "") for name in set(files)}
        lines = [
            f"{row},{text},{names[file]}\n"
            for row, text, file in zip(rows, texts, files, strict=True)
        ]
        return Encoded(len(lines), "".join(lines).encode("utf-8", "surrogateescape"))

    def write(self, encoded: Encoded) -> bytes:
        """See `Encoder.write`."""
        text: bytes = encoded.content
        return text

    def end_run(self) -> bytes:
        """See `Encoder.end_run`."""
        return b""


def _numbers(values: Any) -> list[str]:
    found = list(map(str, values.tolist()))
    return found if values.dtype.kind != "f" else ["" if one == "nan" else one for one in found]


def _texts(values: list[Any]) -> list[str]:
    return [_field(_text(value)) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or value != value or type(value).__name__ in ("NaTType", "NAType"):
        return ""
    if isinstance(value, (list, tuple, dict)):
        return json_text(value)
    return str(value)


def _field(text: str) -> str:
    """Return the text as a field of CSV, in quotes where it needs them."""
    if not any(sign in text for sign in ',"\n\r'):
        return text
    return '"' + text.replace('"', '""') + '"'
