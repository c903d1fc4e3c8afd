"""The ends of what replicas printed."""

from __future__ import annotations

from collections import deque
from pathlib import Path

#: Of one line: what a script prints without a newline must not become the whole answer.
LINE_CHARS_MAX = 10_000

#: Of one replica's log, from its end.
BYTES_MAX = 8 << 20


def tail_of(folder: Path, lines: int) -> str:
    """Return the last lines of the logs in a folder, each headed by its replica if there are more.

    The logs share the lines; what a short one leaves over is the others'. The replica that printed
    last comes last.
    """
    found: dict[Path, list[str]] = {}
    sizes = {one: one.stat().st_size for one in folder.glob("*.log") if one.is_file()}
    for number, log in enumerate(sorted(sizes, key=lambda one: sizes[one])):   # short ones first
        head = f"[{log.stem}] " if len(sizes) > 1 else ""
        room = lines - sum(map(len, found.values()))
        share = room // (len(sizes) - number)
        found[log] = [f"{head}{line}" for line in _last_lines(log, share)]
    latest_last = sorted(found, key=lambda log: log.stat().st_mtime)
    return "".join(f"{line}\n" for log in latest_last for line in found[log])


def _last_lines(log: Path, count: int) -> list[str]:
    older = log.with_name(f"{log.name}.1")   # where it was rotated
    found: deque[str] = deque(maxlen=count)
    for path in (older, log):
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - BYTES_MAX))
                text = file.read(BYTES_MAX).decode(errors="replace")
        except FileNotFoundError:
            continue
        found.extend(line[:LINE_CHARS_MAX] for line in text.splitlines())
    return list(found)
