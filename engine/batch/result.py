"""How a driver ends: with a result, which is stored, or told to stop."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from inferay.engine.batch.dispatch import Counts
from inferay.errors import JobError


class Canceled(JobError):
    """Raised in the driver when the job was asked to end."""

    code = "Canceled"


class Interrupted(JobError):
    """Raised in the driver when its process was told to stop; the job can be resumed."""

    code = "Interrupted"


@dataclass(frozen=True)
class Result:
    """How a job ended.

    Attributes:
        status: `Completed`, `Failed` or `Canceled`.
        epoch: The epoch that ended it.
        output: Folder of the output.
        counts: How far it came.
        error: Why it did not complete: code, message, target, details.
        seconds: From the first lease to the published output, of this epoch.
    """

    status: str
    epoch: int
    output: str
    counts: Counts
    error: dict[str, Any] | None = None
    seconds: float = 0.0

    def to_bytes(self) -> bytes:
        """Return the result as it is stored."""
        return json.dumps({"format": "inferay.result", "version": 1, **asdict(self)}).encode()
