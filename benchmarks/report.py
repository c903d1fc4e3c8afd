"""The tables: what was measured on one commit, in as many parts as it took, as one section.

Parts are gathered in `.bench`, a file for batch and one for online; each adds to it, or replaces
what it measured again, and writes the commit's section of `RESULTS.md` anew. Sections of other
commits stay as they are.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
MEASURED = HERE.parent / ".bench"


@dataclass(frozen=True)
class Plain:
    """The engine beside plain processes, or another floor, starts excluded.

    Attributes:
        name: Of the work.
        what: What was measured beside what.
        aim: The ratio to reach at most.
        ours_s: From the first lease, with all workers up, to the published output.
        theirs_s: The others' times, measured in between.
        starts_s: What our job took besides: its start, the listing, its end.
    """

    name: str
    what: str
    aim: float
    ours_s: list[float]
    theirs_s: list[float]
    starts_s: list[float]

    def row(self) -> str:
        ratio = statistics.median(self.ours_s) / statistics.median(self.theirs_s)
        return (
            f"| {self.name} | {self.what} | {ratio:.2f} | {self.aim:.2f} | {_range(self.ours_s)} | "
            f"{_range(self.theirs_s)} | {_range(self.starts_s)} | {len(self.ours_s)} |"
        )


@dataclass(frozen=True)
class Peer:
    """Our whole job beside a peer's.

    Attributes:
        name: Of the work.
        peer: Which.
        items: Files or rows.
        aim: How many times our time the peer's is to be at least.
        ours_s: Our whole jobs.
        theirs_s: The peer's, measured in between.
        small_items: Items of a small job, which is nearly all start.
        ours_small_s: Our small job.
        theirs_small_s: The peer's.
    """

    name: str
    peer: str
    items: int
    aim: float
    ours_s: list[float]
    theirs_s: list[float]
    small_items: int
    ours_small_s: float
    theirs_small_s: float

    def row(self) -> str:
        ours_s, theirs_s = statistics.median(self.ours_s), statistics.median(self.theirs_s)
        ours_steady_s, theirs_steady_s = ours_s - self.ours_small_s, theirs_s - self.theirs_small_s
        steady = f"{theirs_steady_s / ours_steady_s:.2f}" if ours_steady_s > 0 else "-"
        return (
            f"| {self.name} | {self.peer} | {self.items:,} | {theirs_s / ours_s:.2f} | "
            f"{self.aim:g} | {_range(self.ours_s)} | {_range(self.theirs_s)} | {steady} | "
            f"{self.ours_small_s:.1f} | {self.theirs_small_s:.1f} | {len(self.theirs_s)} |"
        )


@dataclass(frozen=True)
class Served:
    """Ours beside another server, under one load, in turn.

    Attributes:
        name: Of the work.
        peer: What stands beside ours.
        what: Its tuning.
        aim: The ratio to reach at least; None where there is none.
        ours: Requests per second, p50 and p99 in ms, of each round.
        theirs: The same of the other, measured in between.
    """

    name: str
    peer: str
    what: str
    aim: float | None
    ours: list[tuple[float, float, float]]
    theirs: list[tuple[float, float, float]]

    def row(self) -> str:
        ratio = statistics.median(
            ours[0] / theirs[0] for ours, theirs in zip(self.ours, self.theirs, strict=True)
        )
        aim = "-" if self.aim is None else f"{self.aim:g}"
        rates = [
            f"{statistics.median(one):.0f} ({min(one):.0f} to {max(one):.0f})"
            for one in ([load[0] for load in side] for side in (self.ours, self.theirs))
        ]
        times = [
            " / ".join(f"{statistics.median(load[at] for load in side):.2f}"
                       for side in (self.ours, self.theirs))
            for at in (1, 2)
        ]
        return (
            f"| {self.name} | {self.peer}: {self.what} | {ratio:.2f} | {aim} | {rates[0]} | "
            f"{rates[1]} | {times[0]} | {times[1]} | {len(self.ours)} |"
        )


@dataclass(frozen=True)
class Figure:
    """A figure that stands alone."""

    name: str
    what: str
    value: str
    aim: str

    def row(self) -> str:
        return f"| {self.name} | {self.what} | {self.value} | {self.aim} |"


Line = Plain | Peer | Served | Figure

HEADS = {
    "Plain": (
        "Engine / two plain processes (or the floor named), starts excluded:",
        "| work | what | ratio | aim: at most | engine, s: median (range) | beside, s: median "
        "(range) | engine's start, listing and end, s | repetitions |",
    ),
    "Peer": (
        "Whole jobs on running clusters, from the start of the process to its end; steady state "
        "is the same without the time of a small job (1 % of the items):",
        "| work | peer | items | peer / engine, whole job | aim: at least | engine, s: median "
        "(range) | peer, s: median (range) | peer / engine, steady state | small job: engine, s "
        "| small job: peer, s | repetitions |",
    ),
    "Served": (
        "Requests per second, through our edge with TLS, keys checked and 10 % mirrored, beside "
        "each other server alone, without TLS and keys; the ratio is the median of the rounds':",
        "| load | beside | ratio | aim: at least | inferay, requests/s: median (range) | beside, "
        "requests/s: median (range) | p50, ms: inferay / beside | p99, ms | rounds |",
    ),
    "Figure": ("Figures that stand alone:", "| what | how | measured | aim |"),
}


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def commit() -> str:
    """Return the newest commit that changed more than the results; `+` says that more has."""
    others = ["--", ".", ":!benchmarks/RESULTS.md"]
    newest = _git("log", "-1", "--format=%h", *others)
    return newest + ("+" if _git("status", "--porcelain", *others) else "")


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=HERE.parent, capture_output=True, text=True, check=True
    ).stdout.strip()


def add(lines: Sequence[Line], seconds: float, title: str = "Batch") -> str:
    """Add the lines to the commit's section of `RESULTS.md` and return the section.

    Args:
        lines: What was measured.
        seconds: What that took.
        title: `Batch` or `Online`: a commit has a section for each.
    """
    kept = MEASURED / f"{title.lower()}.json"
    measured: dict[str, Any] = {}
    if kept.exists():
        measured = json.loads(kept.read_text())
    if measured.get("commit") != commit():
        measured = {"commit": commit(), "title": title, "seconds": 0.0, "lines": {}}
    measured["seconds"] += seconds
    for line in lines:
        kind = type(line).__name__
        peer = f"{getattr(line, 'peer', '')} {line.what}" if isinstance(line, Served) else (
            getattr(line, "peer", "")
        )
        key = " ".join([kind, line.name, peer])
        measured["lines"][key] = {"kind": kind, "row": line.row(), "raw": asdict(line)}
    MEASURED.mkdir(exist_ok=True)
    kept.write_text(json.dumps(measured, indent=1))
    section = render(measured)
    _replace(section)
    return section


def render(measured: dict[str, Any]) -> str:
    machine = f"{os.cpu_count()} CPUs, {psutil.virtual_memory().total / 2**30:.0f} GiB, "
    machine += f"{platform.system()}, Python {platform.python_version()}"
    text = (
        f"## {measured['title']}, commit {measured['commit']}\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}; "
        f"{measured['seconds'] / 60:.0f} minutes in all.\n"
    )
    for kind, (says, head) in HEADS.items():
        lines = measured["lines"]
        rows = [lines[key]["row"] for key in sorted(lines) if lines[key]["kind"] == kind]
        if rows:
            rule = "|---" * (head.count("|") - 1) + "|"
            text += "\n".join(["", says, "", head, rule, *rows]) + "\n"
    return text


def _replace(section: str) -> None:
    """Put the section in the place of the one with the same heading, or at the end."""
    heading = section.partition("\n")[0]
    text = RESULTS.read_text()
    sections = re.split(r"(?m)^(?=## )", text)
    kept = [part for part in sections if part.partition("\n")[0] != heading]
    RESULTS.write_text("".join(kept).rstrip("\n") + "\n\n" + section)
