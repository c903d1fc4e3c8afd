"""Says whether an output is exactly what its input demands. Reads only these two.

Independent of the engine on purpose: nothing of inferay is imported, and the expected bytes come
from this file's own idea of what the scripts in `workload` do.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

SUCCESS = "_SUCCESS.json"


def expected_row(name: str, content: bytes) -> bytes:
    """Return the line that an item has in the output."""
    return f"{name}={hashlib.sha256(content).hexdigest()}\n".encode()


def is_poison(content: bytes) -> bool:
    """Return whether the scripts raise for an item of this content."""
    return content.startswith(b"poison")


def expected_files(items: Path, kind: str) -> dict[str, bytes]:
    """Return name and content of every file that the output must have, but the two reports."""
    contents = {path.name: path.read_bytes() for path in sorted(items.iterdir())}
    rows = {
        name: expected_row(name, content)
        for name, content in contents.items() if not is_poison(content)
    }
    found = {} if kind == "files" else {"predictions.csv": b"".join(rows[n] for n in sorted(rows))}
    if kind != "rows":
        found |= {f"out/{name}.txt": row for name, row in rows.items()}
    return found


def faults(items: Path, output: Path, kind: str) -> list[str]:
    """Return what is wrong with the output, in words; nothing if it is exact.

    Args:
        items: The folder of the input.
        output: The folder of the output.
        kind: `rows` for one predictions file, `files` for a file per item, `both` for both.
    """
    expected = expected_files(items, kind)
    found = {
        str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()
    }
    poison = sorted(p.name for p in items.iterdir() if is_poison(p.read_bytes()))
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
        named = [json.loads(line)["item"] for line in lines]
        if named != poison:
            said.append(f"errors.jsonl names {named}, not {poison}")
    if SUCCESS in found:
        said += _wrong_report(json.loads(found[SUCCESS].read_bytes()), expected, items, poison)
    return said


def _wrong_report(
    report: dict[str, object], expected: dict[str, bytes], items: Path, poison: list[str]
) -> list[str]:
    counts = report["counts"]
    assert isinstance(counts, dict)
    count = len(list(items.iterdir()))
    wanted = {"items": count, "items_ok": count - len(poison), "items_failed": len(poison)}
    said = [
        f"{SUCCESS} counts {counts[name]} {name}, not {number}"
        for name, number in wanted.items() if counts[name] != number
    ]
    files = report["files"]
    assert isinstance(files, list)
    named = {file["name"]: file["sha256"] for file in files}
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
