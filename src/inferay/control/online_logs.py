"""The logs of an online deployment: the ends of what its replicas printed."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from sqlalchemy.orm import Session

from inferay.control.context import Context
from inferay.control.online import get_deployment, live_revision

#: Of one line: what a script prints without a newline must not become the whole answer.
LINE_CHARS_MAX = 10_000

#: Of one replica's log, from its end.
BYTES_MAX = 8 << 20


def read_logs(
    context: Context, session: Session, endpoint: str, name: str, *, container: str, tail: int
) -> str:
    """Return the last lines of a deployment's logs; where it has several replicas, each its share.

    Those of the live revision, or of the newest one where that is being put or has failed.

    Args:
        context: The control plane's.
        session: For reading.
        endpoint: Whose deployment it is.
        name: The deployment.
        container: `inference_server`, or `storage_initializer`, which is always silent: models are
            read in place.
        tail: How many lines.

    Raises:
        NotFound: There is no such deployment.
    """
    row = get_deployment(session, endpoint, name)
    if container == "storage_initializer":
        return ""
    folder = context.workspace.online_logs(endpoint, name)
    live = live_revision(session, endpoint, name)
    if live is not None and row.state == "Succeeded":
        chosen: Path | None = folder / live.name
    else:
        chosen = max((one for one in folder.glob("*") if one.is_dir()), default=None)
    return "" if chosen is None else tail_of(chosen, tail)


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
