"""Fetching remote files ahead of their scoring, within a bounded scratch folder.

Eight files at a time, in the order in which they will be scored. Bytes on disk stay below the
bound, but for the mini-batch that is being scored, which has to be there whole.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from inferay.engine.batch.scratch import local_name
from inferay.engine.batch.units import Unit
from inferay.engine.storage.remote import Found, Remote

#: Files of one worker that are fetched at once: with 20 ms each, 400 a second.
FETCHES_MAX = 8

#: Bytes that one worker fetches ahead: a second or two of a fast network, and little enough for
#: several workers on a machine whose temporary folder is in memory.
SCRATCH_BYTES_MAX = 1 << 30

#: Files that one worker fetches ahead: eight rounds of fetches.
FILES_AHEAD_MAX = 8 * FETCHES_MAX


@dataclass(eq=False)
class _File:
    unit: Unit
    group: int
    own_folder: Path | None = None
    is_needed_now: bool = False
    is_dropped: bool = False
    is_begun: bool = False
    done: Future[str] = field(default_factory=Future)


class Prefetcher:
    """Files of one worker; `prefetch`, `take` and `release` are called by one thread."""

    def __init__(
        self, remote: Remote, folder: Path, *, bytes_max: int = SCRATCH_BYTES_MAX
    ) -> None:
        self._remote = remote
        self._folder = folder
        self._bytes_max = bytes_max
        self._files: dict[Unit, _File] = {}
        self._queue: deque[_File] = deque()
        self._groups = itertools.count()
        self._own = itertools.count()
        self._in_group: dict[int, int] = {}
        self._lock = threading.Lock()
        self._active = 0
        self._held_bytes = 0
        self._threads = ThreadPoolExecutor(FETCHES_MAX, thread_name_prefix="fetch")

    @property
    def is_far_ahead(self) -> bool:
        """Whether enough is fetched or queued for now."""
        with self._lock:
            return len(self._files) >= FILES_AHEAD_MAX or self._held_bytes >= self._bytes_max

    def prefetch(self, units: Iterable[Unit]) -> None:
        """Fetch these files after those named before; does not block."""
        with self._lock:
            self._want(units)
            self._begin_fetches()

    def take(self, units: Sequence[Unit]) -> list[str]:
        """Return the files' local paths, in order; blocks until all are there.

        Raises:
            ReadError: One cannot be read, or is not what was listed.
            InferayError: Nothing there can be read.
            OSError: The scratch folder's disk is full.
        """
        with self._lock:
            self._want(units)
            files = [self._files[unit] for unit in units]
            for file in files:
                file.is_needed_now = True
            first = [file for file in files if not file.is_begun]
            if first:
                self._queue = deque([*first, *(f for f in self._queue if not f.is_needed_now)])
            self._begin_fetches()
        return [file.done.result() for file in files]

    def release(self, units: Iterable[Unit]) -> None:
        """Delete these files, or do not fetch them after all; idempotent."""
        with self._lock:
            for unit in units:
                file = self._files.pop(unit, None)
                if file is not None:
                    file.is_dropped = True
                    if file.done.done() or not file.is_begun:
                        self._remove(file)
            self._begin_fetches()

    def close(self) -> None:
        """Begin no further fetch; does not wait for those under way."""
        with self._lock:
            self._queue.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- inside, with the lock held

    def _want(self, units: Iterable[Unit]) -> None:
        new = [unit for unit in units if unit not in self._files]
        if new:
            group = next(self._groups)
            self._in_group[group] = len(new)
            for unit in new:
                self._files[unit] = file = _File(unit, group)
                self._queue.append(file)

    def _begin_fetches(self) -> None:
        while self._queue and self._active < FETCHES_MAX:
            file = self._queue[0]
            if file.is_dropped:
                self._queue.popleft()
                continue
            held_bytes = self._held_bytes + file.unit.size_bytes
            if held_bytes > self._bytes_max and self._held_bytes and not file.is_needed_now:
                return
            self._queue.popleft()
            file.is_begun = True
            self._active += 1
            self._held_bytes = held_bytes
            self._threads.submit(self._fetch, file)

    def _remove(self, file: _File) -> None:
        """Forget a file that is fetched or was never begun; the last one takes the folder along."""
        if file.is_begun:
            self._held_bytes -= file.unit.size_bytes
            if file.done.exception() is None:
                with contextlib.suppress(FileNotFoundError):   # user code may have moved it
                    os.unlink(file.done.result())
        if file.own_folder is not None:
            shutil.rmtree(file.own_folder, ignore_errors=True)
        self._in_group[file.group] -= 1
        if self._in_group[file.group] == 0:
            del self._in_group[file.group]
            shutil.rmtree(self._folder / str(file.group), ignore_errors=True)

    # -- inside, in the threads

    def _fetch(self, file: _File) -> None:
        path, error = "", None
        try:
            unit = file.unit
            expected = Found(unit.path, unit.size_bytes, str(unit.version))
            with self._create(file) as target:
                path = target.name
                self._remote.fetch(expected, target)
        except BaseException as caught:   # whoever takes the file has to hear of it
            error = caught
        with self._lock:
            self._active -= 1
            if error is None:
                file.done.set_result(path)
            else:
                file.done.set_exception(error)
            if file.is_dropped:
                self._remove(file)
            self._begin_fetches()

    def _create(self, file: _File) -> IO[bytes]:
        name = local_name(file.unit.path)
        try:
            return _create(self._folder / str(file.group) / name)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            # Another file has this name, or a part of it, as its own: a store has no folders.
            file.own_folder = self._folder / f"{file.group}-{next(self._own)}"
            return _create(file.own_folder / name)


def _create(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, "xb")
