"""The states of a batch job, and which one it is in: a pure function of what can be seen.

Truth is, in this order: the result that a driver recorded, the wish to cancel, the progress of the
driver of the current epoch, and last what Ray says of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class JobStatus(StrEnum):
    """Azure's job states, as far as a batch job takes them."""

    NOT_STARTED = "NotStarted"
    QUEUED = "Queued"
    PREPARING = "Preparing"
    RUNNING = "Running"
    FINALIZING = "Finalizing"
    CANCEL_REQUESTED = "CancelRequested"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELED)


@dataclass(frozen=True)
class Sighting:
    """What can be seen of a job.

    Attributes:
        result: The recorded result of the current epoch, if any.
        progress: The progress of the current epoch, if any.
        driver: `alive`, `gone`, or `unknown` while Ray does not answer.
        is_cancel_wanted: Whether someone asked for its end.
    """

    result: dict[str, Any] | None
    progress: dict[str, Any] | None
    driver: str
    is_cancel_wanted: bool


@dataclass(frozen=True)
class Verdict:
    """What follows from a sighting.

    Attributes:
        status: The job's state.
        is_resume_due: Whether the driver died without a result and another one must follow.
        error: Why the job did not complete.
    """

    status: JobStatus
    is_resume_due: bool = False
    error: dict[str, Any] | None = None


def judge(seen: Sighting) -> Verdict:
    """Return the job's state, and whether its driver has to be replaced."""
    if seen.result is not None:
        return Verdict(JobStatus(seen.result["status"]), error=seen.result.get("error"))
    if seen.is_cancel_wanted:
        status = JobStatus.CANCELED if seen.driver == "gone" else JobStatus.CANCEL_REQUESTED
        return Verdict(status)
    if seen.driver == "gone":
        return Verdict(JobStatus.QUEUED, is_resume_due=True)
    if seen.progress is None:
        return Verdict(JobStatus.QUEUED)
    state = seen.progress["state"]
    is_known = state in ("Preparing", "Running", "Finalizing")
    return Verdict(JobStatus(state) if is_known else JobStatus.FINALIZING)
