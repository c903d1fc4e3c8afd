"""Reads the pair log: a sample of the pairs of two deployments, chosen by their request ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferay.serve.mirror.bodies import Body
from inferay.serve.mirror.pairs import HEAD, Answered, Pair, by_stamp, sizes_and_times


@dataclass
class Sample:
    """The pairs of two deployments that every process has kept, and what was not seen.

    Attributes:
        level_min: One pair in 2**level_min is in the sample.
        counts: Of copies, by process.
        has_log: Whether a replica has ever written here.
        unreadable: Lines that a crash has torn; complete when `pairs` has ended.
    """

    level_min: int = 0
    counts: list[dict[str, Any]] = field(default_factory=list)
    has_log: bool = False
    unreadable: int = 0
    _paths: list[Path] = field(default_factory=list)

    def pairs(self) -> Iterator[Pair]:
        """Read the pairs, one after the other.

        Raises:
            FileNotFoundError: A replica has dropped some of them meanwhile: read a new sample.
        """
        for path in self._paths:
            with path.open("rb") as lines:
                for line in lines:
                    try:
                        yield _pair_of(json.loads(line))
                    except (ValueError, KeyError, TypeError):
                        self.unreadable += 1


def read_sample(
    folder: Path, live_revision: str | None = None, bytes_max: int | None = None
) -> Sample:
    """Return what can be read of a folder now.

    Args:
        folder: From `folder_of`; it need not exist.
        live_revision: Only pairs of this revision; None for all.
        bytes_max: Of pairs; of more, only so high levels are read that they fit.
    """
    sample = Sample()
    if not folder.is_dir():
        return sample
    groups: list[list[Path]] = []
    for paths in by_stamp(folder).values():
        head = _read_head(paths)
        if head is None:
            continue
        sample.has_log = True
        if live_revision in (None, head["revision"]):
            sample.level_min = max(sample.level_min, head["level_min"])
            sample.counts.append(head["counts"])
            groups.append(paths)
    levels = _by_level(path for paths in groups for path in paths)
    if bytes_max is not None:
        sizes = {level: sum(sizes_and_times(paths)[0]) for level, paths in levels.items()}
        while sum(size for level, size in sizes.items() if level >= sample.level_min) > bytes_max:
            sample.level_min += 1
    sample._paths = [
        path for level, paths in levels.items() if level >= sample.level_min for path in paths
    ]
    return sample


def _by_level(paths: Iterable[Path]) -> dict[int, list[Path]]:
    """Return the files of pairs, by their level."""
    found: dict[int, list[Path]] = {}
    for path in paths:
        if path.suffix[1:].isdigit():
            found.setdefault(int(path.suffix[1:]), []).append(path)
    return found


def _read_head(paths: list[Path]) -> dict[str, Any] | None:
    for path in paths:
        if path.suffix == HEAD:
            try:
                head: dict[str, Any] = json.loads(path.read_text())
            except (FileNotFoundError, ValueError):   # swept away; or a machine that crashed
                return None
            return head
    return None


def _pair_of(values: dict[str, Any]) -> Pair:
    return Pair(
        values["id"], values["at"], Body.from_dict(values["request"]),
        Answered.from_dict(values["live"]), Answered.from_dict(values["shadow"]),
    )
