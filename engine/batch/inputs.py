"""What `run()` is given for the units of a mini-batch."""

from __future__ import annotations

from collections.abc import Iterable

from inferay.engine.batch.units import Unit


class Inputs:
    """Turns units into the argument of `run()`.

    Attributes:
        root: What the units' paths are relative to.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def paths(self, units: Iterable[Unit]) -> list[str]:
        """Return the units' files as paths of this machine, in order."""
        root = self.root
        return [f"{root}/{unit.path}" for unit in units]
