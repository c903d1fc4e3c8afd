"""Says whether an output is exactly what its input demands. Reads only these two.

Independent of the engine on purpose: nothing of inferay is imported, and the expected bytes come
from this file's own idea of what the scripts in `workload` do.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUCCESS = "_SUCCESS.json"


@dataclass(frozen=True)
class Item:
    """What has a row of its own in the output: a file, or a row of a table.

    Attributes:
        name: As the output has it.
        content: What it is.
        where: As `errors.jsonl` names it.
    """

    name: str
    content: bytes
    where: dict[str, Any]


def expected_row(name: str, content: bytes) -> bytes:
    """Return the line that an item has in the output."""
    return f"{name}={hashlib.sha256(content).hexdigest()}\n".encode()


def is_poison(content: bytes) -> bool:
    """Return whether the scripts raise for an item of this content."""
    return content.startswith(b"poison")


def read_items(folder: Path, kind: str) -> list[Item]:
    """Return the items of an input in the order that their rows must have."""
    paths = sorted(folder.iterdir())
    if kind != "table":
        return [Item(path.name, path.read_bytes(), {"item": path.name}) for path in paths]
    found = []
    for path in paths:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for at, row in enumerate(csv.DictReader(file)):
                where = {"item": path.name, "rows": [at, at + 1]}
                found.append(Item(row["name"], row["text"].encode(), where))
    return found


def expected_files(items: Path, kind: str) -> dict[str, bytes]:
    """Return name and content of every file that the output must have, but the two reports."""
    rows = {
        item.name: expected_row(item.name, item.content)
        for item in read_items(items, kind) if not is_poison(item.content)
    }
    found = {} if kind == "files" else {"predictions.csv": b"".join(rows.values())}
    if kind in ("files", "both"):
        found |= {f"out/{name}.txt": row for name, row in rows.items()}
    return found


def faults(items: Path, output: Path, kind: str) -> list[str]:
    """Return what is wrong with the output, in words; nothing if it is exact.

    Args:
        items: The folder of the input.
        output: The folder of the output.
        kind: `rows` for one predictions file, `files` for a file per item, `both` for both;
            `table` for one predictions file with a row for each row of the input's tables.
    """
    expected = expected_files(items, kind)
    found = {
        str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()
    }
    read = read_items(items, kind)
    poison = [item.where for item in read if is_poison(item.content)]
    reports = {SUCCESS, "errors.jsonl"} if poison else {SUCCESS}
    said = []
    for name in sorted({*expected, *reports} - {*found}):
        said.append(f"{name} is missing")
    for name in sorted({*found} - {*expected, *reports}):
        said.append(f"{name} should not be there")
    for name in sorted({*found} & {*expected}):
        content = found[name].read_bytes()
        if content != expected[name]:
            said.append(f"{name}: {_difference(expected[name], content)}")
    if "errors.jsonl" in found:
        lines = found["errors.jsonl"].read_text().splitlines()
        errors = [json.loads(line) for line in lines]
        named = [{key: line[key] for key in ("item", "rows") if key in line} for line in errors]
        if named != poison:
            said.append(f"errors.jsonl names {named}, not {poison}")
    if SUCCESS in found:
        report = json.loads(found[SUCCESS].read_bytes())
        said += _wrong_report(report, expected, len(read), len(poison))
    return said


def _wrong_report(
    report: dict[str, Any], expected: dict[str, bytes], count: int, poison: int
) -> list[str]:
    counts = report["counts"]
    wanted = {"items": count, "items_ok": count - poison, "items_failed": poison}
    said = [
        f"{SUCCESS} counts {counts[name]} {name}, not {number}"
        for name, number in wanted.items() if counts[name] != number
    ]
    named = {file["name"]: file["sha256"] for file in report["files"]}
    if named != {name: hashlib.sha256(data).hexdigest() for name, data in expected.items()}:
        said.append(f"{SUCCESS} has other files or checksums than the output must have")
    return said


def _difference(expected: bytes, found: bytes) -> str:
    wanted, got = expected.splitlines(), found.splitlines()
    lost, extra = set(wanted) - set(got), set(got) - set(wanted)
    doubled = len(got) - len(set(got))
    return (
        f"{len(got)} lines, not {len(wanted)}: {len(lost)} lost, {(extra and len(extra)) or 0} "
        f"strange, {doubled} doubled, {'in' if sorted(got) == got else 'out of'} order"
    )
