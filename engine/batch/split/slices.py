"""Whole records of a slice of a text file: some of them, the first of them, or the header's."""

from __future__ import annotations

import re
from itertools import chain

from inferay.engine.batch.split.bits import Positions
from inferay.engine.batch.split.formats import Format
from inferay.engine.batch.split.records import (
    CSV,
    LINES,
    TSV,
    Dialect,
    Source,
    iter_records,
    record_starts,
    scan,
)

DIALECTS: dict[Format, Dialect] = {"csv": CSV, "tsv": TSV, "jsonl": LINES}


def starts_of(text: bytes, form: Format) -> Positions:
    """Return where the records of a text begin that itself begins with one."""
    dialect = DIALECTS[form]
    starts, _ = record_starts(scan(b"\n" + text + b"\n", dialect), False, dialect)
    return starts - 1


def some_records(text: bytes, starts: Positions, first: int, stop: int) -> bytes:
    """Return the records [first, stop) of a text, whose records begin at `starts`."""
    end = int(starts[stop]) if stop < len(starts) else len(text)
    return text[int(starts[first]) : end]


def without_blank_lines(text: bytes, form: Format) -> bytes:
    """Return a CSV, or records of one, with its lines of nothing but blanks made empty.

    Those are no records, nor are empty lines; but Arrow takes only the latter for none.
    """
    blanks = DIALECTS[form].blanks
    heads = [bytes((end, blank)) for end in b"\r\n" for blank in blanks]
    if text[:1] not in blanks and not any(head in text for head in heads):
        return text
    lines = re.compile(rb"(?<![^\r\n])[%s]+(?![^\r\n])" % blanks)
    # Filled, such a line begins a record, unless it stands in quotes: there it is text.
    filled = lines.sub(lambda line: b"x" * len(line[0]), text)
    starts = set(starts_of(filled, form).tolist())
    return lines.sub(lambda line: b"" if line.start() in starts else line[0], text)


def first_records(source: Source, form: Format, start: int, stop: int, limit: int) -> bytes:
    """Return the first records of the slice [start, stop): about `limit` bytes, one at least."""
    text = source.read(start, min(stop, start + limit))
    if start + len(text) >= stop:
        return text
    starts = starts_of(text, form)
    if len(starts) < 2:   # the first is larger than the limit
        return source.read(start, stop)
    return text[: int(starts[-1])]


def read_prefix(source: Source, form: Format) -> bytes:
    """Return a CSV up to the end of its first row, header and all; of JSON Lines, nothing."""
    if form == "jsonl":
        return b""
    records = chain.from_iterable(chunk.tolist() for chunk in iter_records(source, DIALECTS[form]))
    next(records)
    next(records)
    prefix = source.read(0, next(records, source.size_bytes))
    return prefix if prefix.endswith((b"\n", b"\r")) else prefix + b"\n"
