"""The tree of parts that a failed mini-batch is cut into; the same in every epoch of a job.

So an epoch goes on with the parts that are missing, and an item's number of attempts follows from
its place in the tree: it does not depend on how often the job was resumed.
"""

from __future__ import annotations

from collections.abc import Iterator

#: The items [start, stop) of one mini-batch.
Part = tuple[int, int]


def halves(part: Part) -> tuple[Part, Part]:
    """Return both halves of a part of at least two items."""
    start, stop = part
    middle = (start + stop) // 2
    return (start, middle), (middle, stop)


def missing_parts(part: Part, done: list[Part], depth: int = 0) -> Iterator[tuple[Part, int]]:
    """Yield the largest parts below this one of which nothing is done, and how deep each lies.

    The part itself was tried: it is not yielded, unless it is a single item.
    """
    if part[1] - part[0] == 1:
        if part not in done:
            yield part, depth
        return
    for half in halves(part):
        if half in done:
            continue
        if any(half[0] <= start and stop <= half[1] for start, stop in done):
            yield from missing_parts(half, done, depth + 1)
        else:
            yield half, depth + 1
