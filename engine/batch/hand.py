"""What a worker process has in hand, in a few bytes of memory that its parent shares.

The worker writes which mini-batch it scores and since when, without a system call; the parent
reads it to find a hang, and, after a death, which mini-batch to blame.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

_MINI_BATCH = struct.Struct("<q")
_SINCE = struct.Struct("<d")
_NOTHING = -1


class Hand:
    """The shared cell; opened by the parent first (`create=True`), then by the worker."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            if create:
                os.ftruncate(descriptor, mmap.PAGESIZE)
            self._memory = mmap.mmap(descriptor, mmap.PAGESIZE)
        finally:
            os.close(descriptor)
        if create:
            self.release()

    def take(self, mini_batch: int) -> None:
        """Say that the mini-batch is begun now."""
        # The time first: whoever reads the new mini-batch must not see the old one's time.
        _SINCE.pack_into(self._memory, _MINI_BATCH.size, time.monotonic())
        _MINI_BATCH.pack_into(self._memory, 0, mini_batch)

    def release(self) -> None:
        """Say that nothing is in hand."""
        _MINI_BATCH.pack_into(self._memory, 0, _NOTHING)

    def read(self) -> tuple[int | None, float]:
        """Return the mini-batch in hand, or None, and when it was begun (monotonic seconds)."""
        (mini_batch,) = _MINI_BATCH.unpack_from(self._memory, 0)
        (since_s,) = _SINCE.unpack_from(self._memory, _MINI_BATCH.size)
        return (None if mini_batch == _NOTHING else mini_batch), since_s

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
