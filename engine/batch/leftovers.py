"""The end of what a worker process started: children, daemons, fork bombs.

What stays in the worker's process group dies with one signal. What has left it (`setsid`, a double
fork) is found by a mark in its environment, or because the worker had it below it when it was last
seen; it dies with the group that it has made. Linux only, the worker's group apart.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping

from inferay.engine.batch.memory import start_of

#: Name of the environment variable that marks all that a worker starts.
MARK = "_INFERAY_WORKER"

#: A fork bomb whose every process makes a group is killed round by round, for at most this long.
KILL_S = 1.0

#: What forks and ends, over and over, can slip through one look at all processes.
EMPTY_ROUNDS = 2

#: A process without an environment that is younger may be about to get one, from its `exec`.
YOUNG_S = 5.0

#: Process id of the parent of the kernel's own threads.
_KTHREADD = 2


def kill_group(pid: int) -> None:
    """Kill the process group at once; a fork bomb in it has no chance to fork on."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def kill_leftovers(mark: str, seen: Mapping[int, bytes]) -> None:
    """Kill what has this mark, and what of the seen processes is still the same.

    Blocks until nothing of it is left, for `KILL_S` at most.
    """
    for pid, start in seen.items():
        if start_of(pid) == start:
            _kill(pid)
    until_s = time.monotonic() + KILL_S
    empty_rounds = 0
    while empty_rounds < EMPTY_ROUNDS and time.monotonic() < until_s:
        empty_rounds = 0 if _kill_marked(mark) else empty_rounds + 1


def _kill_marked(mark: str) -> bool:
    """Kill what is found, the newest first and at once: it may be about to fork again."""
    wanted = f"{MARK}={mark}".encode()
    has_found = False
    try:
        pids = sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), reverse=True)
    except FileNotFoundError:   # not Linux
        return False
    for pid in pids:
        # It has ended, or is not ours.
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            environment = file.read()
            if wanted in environment.split(b"\0"):
                _kill(pid)
                has_found = True
            elif not environment and _may_be_in_exec(pid):
                has_found = True   # on busy cores it may stay there for several rounds
    return has_found


def _may_be_in_exec(pid: int) -> bool:
    """Return whether a process that shows no environment may be between two programs."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        state, parent, *rest = file.read().rpartition(b")")[2].split()
    is_of_kernel = int(parent) in (0, _KTHREADD)
    if is_of_kernel or state in b"ZX":
        return False
    began_s = int(rest[17]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began_s < YOUNG_S


def _kill(pid: int) -> None:
    """Kill it with its group: what forks and ends, over and over, is gone before its own signal."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # A group in a session that is not ours can hold only what the worker started.
        if os.getsid(pid) != os.getsid(0):
            kill_group(os.getpgid(pid))
        os.kill(pid, signal.SIGKILL)
