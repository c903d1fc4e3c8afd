"""What a replica prints, in a file of its own with a limit.

Taken at the file descriptors, so that what C code prints, and a traceback of a crash, is there too.
Nothing stands between the process and its file: a pipe would lose a crash's last words, and stop a
replica whose reader is stuck.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

#: Of the file and of the older one that it replaces.
BYTES_MAX = 16 << 20

#: Logs of one folder, those of replicas that are gone included: more than run at once.
LOGS_MAX = 200

#: Between two looks at the file's size: what is printed in between may exceed the limit.
LOOK_S = 0.5


class ReplicaLog:
    """Appends this process's stdout and stderr to a file, from now until the process ends.

    Where they went before they go no longer; that place is told where they are.

    Args:
        path: `REPLICA.log`; the older part is beside it, as `REPLICA.log.1`.
        bytes_max: Above this, the file becomes the older one, and a new one begins.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, *, bytes_max: int = BYTES_MAX) -> None:
        self._path = path
        self._older = path.with_name(f"{path.name}.1")
        self._bytes_max = bytes_max
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_oldest(path.parent, LOGS_MAX - 1)
        file = self._open()
        print(f"What this replica prints is in {path}", file=sys.stderr, flush=True)
        if isinstance(sys.stdout, io.TextIOWrapper):   # lines come as they are printed
            sys.stdout.reconfigure(line_buffering=True)
        sys.stdout.flush()
        # Whoever reads the old ones (Ray may have put a pipe there) shall not see them end.
        self._before = [os.dup(1), os.dup(2)]
        self._take(file)
        threading.Thread(target=self._watch, name="replica-log", daemon=True).start()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _take(self, file: int) -> None:
        os.dup2(file, 1)   # inheritable: what the user's code starts prints here too
        os.dup2(file, 2)
        os.close(file)

    def _watch(self) -> None:
        wait = threading.Event().wait
        while not wait(LOOK_S):
            try:
                if os.fstat(1).st_size > self._bytes_max:
                    os.replace(self._path, self._older)
                    self._take(self._open())
            except OSError as error:
                # The disk may be full or the folder gone: the next look tries again.
                print(f"the log {self._path} cannot be rotated: {error}", file=sys.stderr)


def _remove_oldest(folder: Path, kept: int) -> None:
    """Remove what was written longest ago: replicas come and go with the load."""
    def written_s(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except FileNotFoundError:   # another replica does the same
            return 0.0

    found = sorted(folder.glob("*.log*"), key=written_s)
    for path in found[:max(0, len(found) - kept)]:
        path.unlink(missing_ok=True)
