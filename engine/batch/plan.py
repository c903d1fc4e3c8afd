"""Which units make up a mini-batch, for scripts that take paths and for those that take tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from inferay.engine.batch.spec import JobSettings
from inferay.engine.batch.units import Unit
from inferay.engine.sizes import parse_mini_batch_size
from inferay.engine.storage import Access
from inferay.errors import InvalidInput


@dataclass(frozen=True)
class Planned:
    """A stream of mini-batches.

    Attributes:
        mini_batches: The units of each, in order.
        types: Of files that were cut, by path; complete when the mini-batches have ended.
    """

    mini_batches: Iterator[list[Unit]]
    types: Mapping[str, Any] = field(default_factory=dict)


def plan_mini_batches(
    files: Iterable[Unit], settings: JobSettings, root: str, access: Access, *,
    skips_hidden: bool = True, has_images: bool = False,
) -> Planned:
    """Group files, or slices of them, as the settings say; nothing is read yet.

    Args:
        files: Of the input, in order.
        settings: Of the job.
        root: What the files' paths are relative to.
        access: How a remote root is reached.
        skips_hidden: Whether hidden files have no rows: those of a folder, not one that was named.
        has_images: Whether images are taken beside tables, each as one row.

    Raises:
        InvalidInput: The size of a mini-batch is none.
    """
    size = parse_mini_batch_size(settings.mini_batch_size)
    if size is None:
        raise InvalidInput(f"mini_batch_size: '{settings.mini_batch_size}' is no size")
    if not settings.table:
        group = by_bytes if size.unit == "bytes" else by_count
        return Planned(group(files, size.limit))
    # numpy, pandas and Arrow are loaded only where rows are counted.
    from inferay.engine.batch.split.plan import Limits, TablePlan
    from inferay.engine.batch.split.sources import Sources

    tables = TablePlan(
        Sources(root, access), settings.table, is_cut=settings.split == "rows",
        limits=Limits.of(size), skips_hidden=skips_hidden, has_images=has_images,
    )
    return Planned(tables.mini_batches(files), tables.types)


def by_count(units: Iterable[Unit], count: int) -> Iterator[list[Unit]]:
    """Yield mini-batches of `count` units, the last one as short as it comes."""
    mini_batch: list[Unit] = []
    for unit in units:
        mini_batch.append(unit)
        if len(mini_batch) == count:
            yield mini_batch
            mini_batch = []
    if mini_batch:
        yield mini_batch


def by_bytes(units: Iterable[Unit], size_bytes: int) -> Iterator[list[Unit]]:
    """Yield mini-batches of at most `size_bytes`; a unit that is larger stands alone."""
    mini_batch: list[Unit] = []
    total = 0
    for unit in units:
        if mini_batch and total + unit.size_bytes > size_bytes:
            yield mini_batch
            mini_batch, total = [], 0
        mini_batch.append(unit)
        total += unit.size_bytes
    if mini_batch:
        yield mini_batch
