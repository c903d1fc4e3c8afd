"""The checker finds what the engine must never do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.checker import expected_files, faults


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """An input with a poison item, and the output that it demands."""
    items, output = tmp_path / "items", tmp_path / "output"
    items.mkdir()
    output.mkdir()
    for number in range(4):
        content = b"poison" if number == 2 else b"%d" % number
        (items / f"item-{number}").write_bytes(content)
    expected = expected_files(items, "both")
    for name, content in expected.items():
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_bytes(content)
    (output / "errors.jsonl").write_text(json.dumps({"item": "item-2"}) + "\n")
    (output / "_SUCCESS.json").write_text(json.dumps({
        "counts": {"items": 4, "items_ok": 3, "items_failed": 1},
        "files": [
            {"name": name, "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in expected.items()
        ],
    }))
    return items, output


def test_an_exact_output_has_no_fault(folders: tuple[Path, Path]) -> None:
    assert faults(*folders, "both") == []


def test_each_row_of_a_table_is_an_item_and_poison_is_named_by_its_row(tmp_path: Path) -> None:
    items, output = tmp_path / "items", tmp_path / "output"
    items.mkdir()
    output.mkdir()
    (items / "b.csv").write_bytes('name,text\r\nr3,"größe\nzwei"\r\nr4,poison\r\n'.encode())
    (items / "a.csv").write_bytes(b'\xef\xbb\xbfname,text\nr1,poison\nr2,"a ""b"", c"\n')
    rows = [f"{name}={hashlib.sha256(text.encode()).hexdigest()}\n"
            for name, text in (("r2", 'a "b", c'), ("r3", "größe\nzwei"))]
    (output / "predictions.csv").write_text("".join(rows))
    errors = [{"item": "a.csv", "rows": [0, 1]}, {"item": "b.csv", "rows": [1, 2]}]
    (output / "errors.jsonl").write_text("".join(json.dumps(e) + "\n" for e in errors))
    (output / "_SUCCESS.json").write_text(json.dumps({
        "counts": {"items": 4, "items_ok": 2, "items_failed": 2},
        "files": [{"name": "predictions.csv",
                   "sha256": hashlib.sha256("".join(rows).encode()).hexdigest()}],
    }))
    assert faults(items, output, "table") == []
    (output / "predictions.csv").write_text("".join(rows[::-1]))
    assert any("out of order" in fault for fault in faults(items, output, "table"))
    (output / "errors.jsonl").write_text(json.dumps(errors[0]) + "\n")
    assert any("errors.jsonl names" in fault for fault in faults(items, output, "table"))


def rewrite(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def to(output: Path) -> None:
        lines = (output / name).read_text().splitlines(keepends=True)
        (output / name).write_text("".join(change(lines)))

    return to


@pytest.mark.parametrize(("harm", "said"), [
    (rewrite("predictions.csv", lambda rows: rows[1:]), "1 lost"),
    (rewrite("predictions.csv", lambda rows: rows + rows[:1]), "1 doubled"),
    (rewrite("predictions.csv", lambda rows: rows[::-1]), "out of order"),
    (rewrite("predictions.csv", lambda rows: ["x\n", *rows[1:]]), "1 strange"),
    (rewrite("out/item-0.txt", lambda rows: [*rows, *rows]), "1 doubled"),
    (rewrite("errors.jsonl", lambda rows: rows * 2), "errors.jsonl names"),
    (lambda output: (output / "out" / "item-3.txt").unlink(), "out/item-3.txt is missing"),
    (lambda output: (output / "_SUCCESS.json").unlink(), "_SUCCESS.json is missing"),
    (lambda output: (output / "errors.jsonl").unlink(), "errors.jsonl is missing"),
    (lambda output: (output / "predictions.csv.partial").touch(), "should not be there"),
    (rewrite("_SUCCESS.json", lambda text: [text[0].replace('"items_ok": 3', '"items_ok": 4')]),
     "counts 4 items_ok, not 3"),
])
def test_what_is_lost_doubled_or_out_of_order_is_found(
    folders: tuple[Path, Path], harm: Callable[[Path], None], said: str
) -> None:
    harm(folders[1])
    found = faults(*folders, "both")
    assert any(said in fault for fault in found), found
