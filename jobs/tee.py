"""What this process prints, to a file as well: Ray keeps a driver's log only while it lives."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from traceback import print_exception
from types import TracebackType
from typing import IO, Self


class Tee:
    """Copies what is printed to a file, while the context lasts; other processes are not copied.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._streams: tuple[IO[str], IO[str]] | None = None

    def __enter__(self) -> Self:
        self._streams = (sys.stdout, sys.stderr)
        sys.stdout = _Twice(sys.stdout, self._file)
        sys.stderr = _Twice(sys.stderr, self._file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._streams is not None:
            sys.stdout, sys.stderr = self._streams
        if error is not None:   # it is printed after us
            print_exception(error, file=self._file)
        self._file.close()


class _Twice(io.TextIOBase):
    def __init__(self, first: IO[str], second: IO[str]) -> None:
        self._both = (first, second)

    def write(self, text: str) -> int:
        for stream in self._open():
            stream.write(text)
            stream.flush()
        return len(text)

    def flush(self) -> None:
        for stream in self._open():
            stream.flush()

    def _open(self) -> list[IO[str]]:
        """Return the streams still open: a logger may hold on to us for longer than the context."""
        return [stream for stream in self._both if not stream.closed]
