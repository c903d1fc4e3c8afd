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

    The replica that printed last comes last.
    """
    logs = [one for one in folder.glob("*.log") if one.is_file()]
    logs.sort(key=lambda path: path.stat().st_mtime)
    if not logs:
        return ""
    share = max(1, lines // len(logs))
    found: list[str] = []
    for log in logs[-lines:]:
        head = f"[{log.stem}] " if len(logs) > 1 else ""
        found += [f"{head}{line}" for line in _last_lines(log, share)]
    return "".join(f"{line}\n" for line in found)


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
