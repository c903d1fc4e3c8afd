"""The soak's section of `benchmarks/RESULTS.md`: a row for each run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.results import RESULTS, commit
from tests.soak.load import Tally

TITLE = "## Online endpoint under load and faults"
_COLUMNS = (
    "commit", "sent requests retried", "requests/s", "wall, s", "requests", "answered 200",
    "refused", "other", "of which while HAProxy was killed", "p50, ms", "p99, ms", "faults",
)
_HEAD = f"""{TITLE}

`make soak`: an open load on a scoring URI over TLS while its replicas, Serve's controller, HAProxy,
the edge process and the control plane are killed, traffic, keys, instances and versions change, a
version's `init()` raises and a mirror's target hangs. The client counts every answer that is not
200 and every connection that is refused or lost.

| {" | ".join(_COLUMNS)} |
|{"---|" * len(_COLUMNS)}
"""


def record(
    tally: Tally, by_fault: Counter[tuple[str, str]], spans: Sequence[tuple[str, float, float]],
    took_s: float, rate: float, is_retried: bool, path: Path = RESULTS,
) -> None:
    """Add a run to the table."""
    total, good, refused = (
        tally.outcomes.total(), tally.outcomes["200"], tally.outcomes["refused"]
    )
    at_haproxy = sum(count for (name, _), count in by_fault.items() if name == "HAProxy SIGKILL")
    add_rows(TITLE, _HEAD, [(
        commit(), "yes" if is_retried else "no", f"{rate:g}", f"{took_s:.0f}", total, good,
        refused, total - good - refused, at_haproxy, f"{tally.percentile_ms(0.5):.1f}",
        f"{tally.percentile_ms(0.99):.1f}", len(spans) - 2,
    )], path)


def add_rows(
    title: str, head: str, rows: Sequence[tuple[object, ...]], path: Path = RESULTS
) -> None:
    """Add rows to the table of a section, which begins with its title; make it where it lacks."""
    text = path.read_text()
    if title not in text:
        text = f"{text.rstrip()}\n\n{head}"
    before, _, rest = text.partition(title)
    table, separator, after = rest.partition("\n## ")
    added = "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in rows)
    path.write_text(before + title + table.rstrip("\n") + "\n" + added + separator + after)
