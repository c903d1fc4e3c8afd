"""A line for each request, of which those of one moment are logged together.

A record of `logging` for each costs more than all else that is done for a small request: it is
formatted, written and flushed at once, and each write lets another thread have the interpreter.
"""

from __future__ import annotations

import asyncio
import logging

#: How long a line waits at most for others.
WAIT_S = 0.05

#: Lines that wait at most: what a burst may hold in memory.
LINES_MAX = 500

#: Of a record: the lines that it has.
_LINES = "request_lines"


class RequestLog:
    """Logs lines at level INFO, in records of one line or of several. Belongs to one event loop."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._lines: list[str] = []

    def add(self, method: str, target: str, status: int, took_s: float) -> None:
        """Log a request that has been answered, soon."""
        if not self._log.isEnabledFor(logging.INFO):
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(WAIT_S, self.flush)
        self._lines.append(f"{method} {target} {status} {took_s * 1e3:.3f}ms")
        if len(self._lines) >= LINES_MAX:
            self.flush()

    def flush(self) -> None:
        """Log what waits; from any thread when the event loop has ended."""
        lines, self._lines = self._lines, []
        if lines:
            self._log.info("%s", "\n".join(lines), extra={_LINES: lines})


class LineFormatter(logging.Formatter):
    """Begins every line of a record of requests as the first: each is read alone."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        text = super().format(record)
        lines: list[str] = getattr(record, _LINES, [])
        head = text.removesuffix(record.getMessage())
        return "\n".join(f"{head}{line}" for line in lines) or text


def begin_logging(level: str) -> None:
    """Let the script's and the server's lines appear on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
