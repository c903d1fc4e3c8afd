from __future__ import annotations

import os
from pathlib import Path

import pytest

from inferay.serve.log_tail import tail_of


def write(folder: Path, name: str, lines: int, at_s: int) -> None:
    path = folder / f"{name}.log"
    path.write_text("".join(f"{name}{number}\n" for number in range(lines)))
    os.utime(path, (at_s, at_s))


def shown(folder: Path, lines: int) -> dict[str, int]:
    """Return how many lines of each replica are shown, in their order."""
    found: dict[str, int] = {}
    for line in tail_of(folder, lines).splitlines():
        name = line.partition("]")[0].removeprefix("[")
        found[name] = found.get(name, 0) + 1
    return found


def test_the_only_log_is_shown_without_a_head_from_its_end(tmp_path: Path) -> None:
    write(tmp_path, "a", 5, 1)
    assert tail_of(tmp_path, 2) == "a3\na4\n"
    assert tail_of(tmp_path, 0) == ""


def test_the_latest_comes_last(tmp_path: Path) -> None:
    write(tmp_path, "a", 2, 2)
    write(tmp_path, "b", 2, 1)
    assert tail_of(tmp_path, 9) == "[b] b0\n[b] b1\n[a] a0\n[a] a1\n"


@pytest.mark.parametrize(("lines", "expected"), [
    (60, {"dead": 2, "live": 29, "long": 29}), (4, {"dead": 1, "live": 1, "long": 2}),
    (1, {"long": 1}), (500, {"dead": 2, "live": 100, "long": 200}),
])
def test_what_short_logs_leave_over_is_the_long_ones(
    tmp_path: Path, lines: int, expected: dict[str, int]
) -> None:
    write(tmp_path, "dead", 2, 1)
    write(tmp_path, "live", 100, 2)
    write(tmp_path, "long", 200, 3)
    assert shown(tmp_path, lines) == expected


def test_no_log_is_no_text(tmp_path: Path) -> None:
    assert tail_of(tmp_path / "nothing", 5) == ""
