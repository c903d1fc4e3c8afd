"""The pair log: the live and the shadow answer of one request, on disk.

A folder `LIVE~SHADOW` for each pair of deployments. A replica process has files of its own in it:

    STAMP.head       one JSON object: whose they are, what was not seen, which levels are kept
    STAMP.00, .01 …  pairs as JSON lines, by their level

A pair's level is the number of leading zeros of the digest of its request id: level 0 has half of
the pairs, level 1 a quarter, and so on. When a process's share of the folder is full, it drops its
lowest level, and writes no more of it: what stays is a sample of all the time since its start,
chosen by nothing but request ids. Nothing is rewritten, and a crash leaves one torn line at most.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferay.serve.mirror.bodies import (
    ANSWER_KEPT_BYTES,
    REQUEST_KEPT_BYTES,
    Body,
    body_of,
)
from inferay.serve.mirror.exchange import Exchange

#: Of the pairs of two deployments, over all replicas, dead and alive. Some 100,000 pairs of 1 KB.
PAIR_BYTES_MAX = 256 << 20

#: Between two looks at what the other replicas have written.
SWEEP_BYTES = 1 << 20

#: A process that has not written for so long has no claim to a share of its own.
ACTIVE_S = 60.0

LEVEL_MAX = 24

#: What the name of a process's head ends with.
HEAD = ".head"

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Answered:
    """One side of a pair.

    Attributes:
        status: None if there was no answer within the time that a request has.
        took_s: As the replica that answered took it; if it did not say, as its caller saw it.
        run_s: How long `run()` took; None if it was not called.
        revision: Of the deployment; None if the answer did not say.
    """

    status: int | None
    took_s: float
    run_s: float | None
    content_type: str | None
    body: Body
    revision: str | None = None

    @property
    def is_error(self) -> bool:
        """Whether a client would have been told of an error."""
        return self.status is None or not 200 <= self.status < 400

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes, as JSON can carry it."""
        return {
            "status": self.status, "took_s": round(self.took_s, 7), "run_s": self.run_s,
            "type": self.content_type, "revision": self.revision, "body": self.body.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Answered:
        """Return the side that `to_dict` wrote."""
        return cls(
            values["status"], values["took_s"], values["run_s"], values["type"],
            Body.from_dict(values["body"]), values["revision"],
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """Both answers of one request.

    Attributes:
        began_unix_s: When the live request reached its replica.
    """

    request_id: str
    began_unix_s: float
    request: Body
    live: Answered
    shadow: Answered


def live_side(exchange: Exchange, revision: str) -> Answered:
    """Return the live side of what was exchanged."""
    return Answered(
        exchange.status, exchange.took_s, exchange.run_s, text_of(exchange.answer_type),
        body_of(exchange.answer_body, ANSWER_KEPT_BYTES), revision,
    )


def text_of(value: bytes | None) -> str | None:
    """Return a header's value as text."""
    return None if value is None else value.decode("latin-1")


def level_of(request_id: str) -> int:
    """Return the level of a request: at least n for one in 2**n."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=4).digest()
    return min(LEVEL_MAX, 32 - int.from_bytes(digest, "big").bit_length())


def folder_of(pairs_dir: Path, live: str, shadow: str) -> Path:
    """Return where the pairs of two deployments of an endpoint lie."""
    return pairs_dir / f"{live}~{shadow}"


def remove_pairs(pairs_dir: Path, deployment: str) -> None:
    """Remove every pair that a deployment is a side of; idempotent."""
    for folder in pairs_dir.glob("*~*"):
        if deployment in folder.name.split("~"):
            for path in folder.iterdir():
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):   # a replica that still runs has written once more
                folder.rmdir()


class PairLog:
    """What one replica process writes of its requests' copies. Belongs to one thread.

    Args:
        pairs_dir: Of the endpoint.
        live: The replica's own deployment, and its `revision`.
        replica: Its id, for people.
        bytes_max: Of all replicas' pairs with one shadow.
        now_s: The time of day.

    Its methods raise OSError where the disk does; the log is then as it was before.
    """

    def __init__(
        self, pairs_dir: Path, live: str, revision: str, replica: str, *,
        bytes_max: int = PAIR_BYTES_MAX, now_s: Callable[[], float] = time.time,
    ) -> None:
        self._pairs_dir = pairs_dir
        self._live = live
        self._revision = revision
        self._replica = replica
        self._bytes_max = bytes_max
        self._now_s = now_s
        self._files: dict[str, _Files] = {}

    def append(self, exchange: Exchange, shadow: str, answer: Answered) -> None:
        """Write a pair, unless its level is no longer kept."""
        files = self._files_of(shadow)
        level = level_of(exchange.request_id)
        if level < files.level_min:
            return
        files.append(level, _encode({
            "id": exchange.request_id, "at": exchange.began_unix_s,
            "request": body_of(exchange.request_body, REQUEST_KEPT_BYTES).to_dict(),
            "live": live_side(exchange, self._revision).to_dict(), "shadow": answer.to_dict(),
        }).encode() + b"\n")

    def count(self, shadow: str, counts: Mapping[str, Any]) -> None:
        """Replace the counts of copies to a shadow, since this process began."""
        files = self._files_of(shadow)
        files.counts = dict(counts)
        files.write_head()

    def close(self) -> None:
        """Close the files; idempotent."""
        for files in self._files.values():
            files.close()
        self._files.clear()

    def _files_of(self, shadow: str) -> _Files:
        files = self._files.get(shadow)
        if files is None:
            head = {"live": self._live, "shadow": shadow, "revision": self._revision,
                    "replica": self._replica, "began": self._now_s()}
            folder = folder_of(self._pairs_dir, self._live, shadow)
            files = _Files(folder, head, self._bytes_max, self._now_s)
            self._files[shadow] = files
        return files


class _Files:
    """One process's files of one pair of deployments."""

    def __init__(
        self, folder: Path, head: dict[str, Any], bytes_max: int, now_s: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._head = head
        self._bytes_max = bytes_max
        self._now_s = now_s
        self._stamp = f"{int(now_s() * 1e3):013d}-{os.getpid()}-{secrets.token_hex(4)}"
        self._open: dict[int, tuple[int, int]] = {}   # level: descriptor, bytes
        self._share_bytes = 0
        self._until_sweep_bytes = 0
        self.level_min = 0
        self.counts: dict[str, Any] = {}
        self.write_head()
        self._sweep()

    def append(self, level: int, line: bytes) -> None:
        descriptor, size_bytes = self._open.get(level) or (self._create(level), 0)
        written = os.write(descriptor, line)
        if written < len(line):   # the disk is full: no torn line before the next one
            os.ftruncate(descriptor, size_bytes)
            raise OSError(28, "No space left on device", str(self._path(level)))
        self._open[level] = descriptor, size_bytes + len(line)
        self._until_sweep_bytes -= len(line)
        if self._until_sweep_bytes <= 0:
            self._sweep()
        while sum(size for _, size in self._open.values()) > self._share_bytes:
            self._drop_lowest()

    def write_head(self) -> None:
        """Replace the head: who reads it never sees half of it.

        Where it is gone, so are the other files, which are made anew.
        """
        path = self._folder / f"{self._stamp}{HEAD}"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            self.close()
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(
            self._head | {"level_min": self.level_min, "counts": self.counts}
        ))
        os.replace(partial, path)

    def close(self) -> None:
        for descriptor, _ in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _path(self, level: int) -> Path:
        return self._folder / f"{self._stamp}.{level:02d}"

    def _create(self, level: int) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        return os.open(self._path(level), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _drop_lowest(self) -> None:
        """Keep half as many pairs. The head says so first: a reader never counts on the file."""
        level = min(self._open)
        self.level_min = level + 1
        self.write_head()
        descriptor, _ = self._open.pop(level)
        os.close(descriptor)
        self._path(level).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Divide one half among the processes that write; of the others keep the newest half."""
        self._until_sweep_bytes = SWEEP_BYTES
        now_s, active, ended = self._now_s(), 1, []
        for stamp, paths in by_stamp(self._folder).items():
            sizes, times = sizes_and_times(paths)
            if stamp != self._stamp and sizes:
                if now_s - max(times) < ACTIVE_S:
                    active += 1
                else:
                    ended.append((max(times), sum(sizes), paths))
        self._share_bytes = self._bytes_max // 2 // active
        kept_bytes = 0
        for _, size_bytes, paths in sorted(ended, reverse=True):
            kept_bytes += size_bytes
            if kept_bytes > self._bytes_max // 2:
                for path in paths:
                    path.unlink(missing_ok=True)


def by_stamp(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each process, in order of their names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        found.setdefault(path.stem, []).append(path)
    return found


def sizes_and_times(paths: list[Path]) -> tuple[list[int], list[float]]:
    """Return the sizes, and the times of the last writes, of those that are still there."""
    stats = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):   # another process has swept it away
            stats.append(path.stat())
    return [one.st_size for one in stats], [one.st_mtime for one in stats]
