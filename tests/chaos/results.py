"""The table of chaos trials in `benchmarks/RESULTS.md`: a row per part, a sum per commit."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.trial import Verdict
from tests.chaos.workload import FAULTS, NODE_FAULTS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
KINDS = (*FAULTS, *NODE_FAULTS)

TITLE = "## Chaos"
_COLUMNS = (
    "commit", "seeds", "trials", "exact", "faults", *KINDS, "trials with a node or zombie",
    "trials on S3", "its requests with a fault", "trials of tables",
    "scored twice", "wall, s", "of it scoring, s",
)
_HEAD = f"""{TITLE}

`make chaos TRIALS=100 FROM=0`: whole jobs on a Ray cluster of three nodes, workers, actors, drivers
and nodes killed, drivers and nodes frozen and let come back, all drawn from the trial's seed. A
third has work and output, and often its input, on a real S3 server, some of whose answers fail.
Exact means that an independent checker found the output byte for byte what the input demands.

| {" | ".join(_COLUMNS)} |
|{"---|" * len(_COLUMNS)}
"""


@dataclass(frozen=True)
class Part:
    """Trials of consecutive seeds at one commit, as one row of the table."""

    commit: str
    seeds: str
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, commit: str, verdicts: Sequence[Verdict]) -> Part:
        """Return the row of these trials."""
        kills: Counter[str] = Counter()
        for verdict in verdicts:
            kills.update(verdict.kills)
        seeds = [verdict.plan.seed for verdict in verdicts]
        special = {*NODE_FAULTS, "zombie driver"}
        return cls(commit, f"{min(seeds)} to {max(seeds)}", (
            len(verdicts), sum(not v.wrong for v in verdicts), kills.total(),
            *(kills[kind] for kind in KINDS),
            sum(bool(special & {*v.kills}) for v in verdicts),
            sum(v.plan.storage == "s3" for v in verdicts), sum(v.far_faults for v in verdicts),
            sum(v.plan.script == "table" for v in verdicts),
            sum(v.redone for v in verdicts), round(sum(v.seconds for v in verdicts)),
            round(sum(v.plan.items * v.plan.nap_s / v.plan.workers for v in verdicts)),
        ))

    @classmethod
    def parse(cls, line: str) -> Part:
        """Return the row that `to_line` wrote."""
        commit, seeds, *numbers = (cell.strip(" *") for cell in line.strip("|\n ").split("|"))
        return cls(commit, seeds, tuple(map(int, numbers)))

    def to_line(self) -> str:
        """Return the row as Markdown."""
        return f"| {self.commit} | {self.seeds} | {' | '.join(map(str, self.numbers))} |\n"


def record(part: Part, path: Path = RESULTS) -> None:
    """Add a part to the table, in place of an equal part of the same commit, and sum up anew."""
    text = path.read_text()
    if TITLE not in text:
        text = f"{text.rstrip()}\n\n{_HEAD}"
    head, table, rest = _split(text)
    parts = [Part.parse(line) for line in table if not line.startswith("| **")]
    parts = [p for p in parts if (p.commit, p.seeds) != (part.commit, part.seeds)] + [part]
    lines = []
    for commit in dict.fromkeys(p.commit for p in parts):
        rows = [p for p in parts if p.commit == commit]
        lines += [row.to_line() for row in rows]
        if len(rows) > 1:
            total = [sum(column) for column in zip(*(row.numbers for row in rows), strict=True)]
            lines.append(f"| **{commit}** | **all** | {' | '.join(f'**{n}**' for n in total)} |\n")
    path.write_text(head + "".join(lines) + rest)


def commit() -> str:
    """Return the short hash of what is checked out, with a `+` where files differ from it."""
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()

    changed = [
        line for line in git("status", "--porcelain").splitlines() if "RESULTS.md" not in line
    ]
    return git("rev-parse", "--short=7", "HEAD") + ("+" if changed else "")


def _split(text: str) -> tuple[str, list[str], str]:
    """Return what stands before the rows of the table, the rows, and what follows."""
    at = text.index(TITLE)
    found = re.compile(r"^\|(---\|)+\n", re.MULTILINE).search(text, at)
    assert found is not None, f"{TITLE} has no table"
    rows = re.compile(r"(\|.*\n)*").match(text, found.end())
    assert rows is not None   # it may be empty
    return text[: found.end()], rows.group().splitlines(keepends=True), text[rows.end() :]
