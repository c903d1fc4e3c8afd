"""How much memory a worker takes, with all that it started, and what it may take.

Counted is what only the end of the processes gives back: anonymous and shared memory, swapped or
not. Files that are mapped (a model, say) are the page cache's, and count for nothing. Read from
/proc: on other systems than Linux nothing is limited.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from inferay.errors import InvalidInput

MB = 1 << 20

#: A deployment's property: the memory of one worker in MB; 0 is no limit.
WORKER_MEMORY = "inferay.worker_memory_mb"

#: Digits of that number: nearly a petabyte.
WORKER_MEMORY_DIGITS_MAX = 9

#: What the workers together leave to the driver, Ray and the system: a tenth, and at least so much.
RESERVE_SHARE = 0.1
RESERVE_BYTES_MIN = 1 << 30

#: Processes of one worker, itself included. More is a fork bomb, and each look at them costs time.
PROCESSES_MAX = 1_000

#: Exact counting reads every page table, so it may take at most this share of the time.
EXACT_SHARE = 0.1

_CHEAP = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
_EXACT = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")


def worker_memory_bytes(
    properties: Mapping[str, str], *, instance_bytes: int | None, concurrency: int,
    machine_bytes: int | None = None, workers: int = 1,
) -> int | None:
    """Return the memory limit of one worker, or None for none.

    Args:
        properties: Of the deployment; `inferay.worker_memory_mb` overrides what follows from the
            sizes.
        instance_bytes: Memory of the instance type, which `concurrency` workers share.
        concurrency: Workers per instance.
        machine_bytes: Memory of the one machine that all workers run on, if it is one.
        workers: How many those are.

    Raises:
        InvalidInput: The property is no whole number of MB, or has too many digits.
    """
    wanted = properties.get(WORKER_MEMORY)
    if wanted is not None:
        is_number = wanted.isascii() and wanted.isdigit()
        if not is_number or len(wanted) > WORKER_MEMORY_DIGITS_MAX:
            raise InvalidInput(
                f"properties: {WORKER_MEMORY}: expected a whole number of MB (0: no limit) of at "
                f"most {WORKER_MEMORY_DIGITS_MAX} digits, got '{wanted[:100]}'",
                target=WORKER_MEMORY,
            )
        return int(wanted) * MB or None
    limits = [] if instance_bytes is None else [instance_bytes // concurrency]
    if machine_bytes is not None:
        reserve = max(RESERVE_BYTES_MIN, int(machine_bytes * RESERVE_SHARE))
        limits.append(max(machine_bytes - reserve, machine_bytes // 2) // workers)
    return min(limits, default=None)


class MemoryWatch:
    """A worker process and its descendants, looked at again and again.

    Attributes:
        used_bytes: At the last look.
        descendants: Process id and start time of what it had started, at the last look.
    """

    def __init__(self, pid: int) -> None:
        self.used_bytes = 0
        self.descendants: dict[int, bytes] = {}
        self._pid = pid
        self._next_exact_s = 0.0

    def look(self, limit_bytes: int | None, now_s: float) -> None:
        """Read anew; costs some 50 µs, and more with each process.

        A page that processes share counts in each, for counting it once is slow: that is only done
        when the limit seems to be passed.
        """
        if sys.platform != "linux":
            return
        pids = descendants_of(self._pid)
        if not pids and _has_ended(self._pid):
            return   # what it had started is another's child now, and still to be ended
        self.descendants = {pid: start for pid in pids if (start := start_of(pid))}
        used_bytes = _sum((self._pid, *pids), "status", _CHEAP)
        if limit_bytes is None or used_bytes <= limit_bytes or not pids:
            self.used_bytes = used_bytes
        elif now_s >= self._next_exact_s:
            began_s = os.times().elapsed
            self.used_bytes = _sum((self._pid, *pids), "smaps_rollup", _EXACT) or used_bytes
            cost_s = os.times().elapsed - began_s
            self._next_exact_s = now_s + cost_s / EXACT_SHARE


def descendants_of(pid: int) -> list[int]:
    """Return the ids of the processes below this one, `PROCESSES_MAX` at most."""
    found: list[int] = []
    waiting = [pid]
    while waiting and len(found) < PROCESSES_MAX:
        folder = f"/proc/{waiting.pop()}/task"
        with contextlib.suppress(OSError):   # it has ended
            for thread in os.listdir(folder):
                with open(f"{folder}/{thread}/children", "rb") as file:
                    children = [int(child) for child in file.read().split()]
                found += children
                waiting += children
    return found


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in b"ZX"
    except OSError:
        return True


def start_of(pid: int) -> bytes:
    """Return when a process began, which tells it from a later one of the same id; b"" if gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19]
    except OSError:
        return b""


def machine_bytes() -> int:
    """Return the memory of this machine, or of this container if that has a limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):   # no cgroup v2, or "max"
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def available_bytes() -> int:
    """Return what the machine can still give without swapping."""
    try:
        lines = Path("/proc/meminfo").read_bytes().splitlines()
    except OSError:
        return machine_bytes() // 2   # not Linux
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(b"MemAvailable:"))


def oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory, here or in all."""
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        with contextlib.suppress(OSError):
            for line in Path(path).read_bytes().splitlines():
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    return 0


def _sum(pids: tuple[int, ...], name: str, fields: tuple[bytes, ...]) -> int:
    total_kb = 0
    for pid in pids:
        # It has ended, or it is another user's.
        with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
            for line in file:
                if line.startswith(fields):
                    total_kb += int(line.split()[1])
    return total_kb << 10
