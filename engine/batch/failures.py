"""The failures of a job so far: the first one for its messages, and the errors that end it."""

from __future__ import annotations

from typing import Any

from inferay.engine.batch.messages import Failure
from inferay.engine.batch.units import Range
from inferay.errors import InferayError, JobError, UserCodeError


class Failures:
    """Remembers the failure of the lowest item that has failed.

    Attributes:
        first: As its commit record has it, or None.
    """

    def __init__(self, error_threshold: int) -> None:
        self.first: dict[str, Any] | None = None
        self._error_threshold = error_threshold

    def add(self, failure: dict[str, Any], items_failed: int) -> JobError | None:
        """Take in a failure of a commit record; return the job's error once there are too many."""
        if self.first is None or _key(failure) < _key(self.first):
            self.first = failure
        if 0 <= self._error_threshold < items_failed:
            return self.threshold_error(items_failed)
        return None

    def threshold_error(self, items_failed: int) -> JobError:
        """Return the error of a job with more failed items than its threshold allows."""
        return JobError(
            f"{items_failed} items have failed, more than error_threshold "
            f"{self._error_threshold} allows; the first: {self._line}",
            code="ErrorThresholdExceeded", details=self._traceback,
        )

    def nothing_succeeded_error(self, items_failed: int) -> JobError:
        """Return the error of a job in which no item succeeded, whatever its threshold."""
        return JobError(
            f"none of {items_failed} items succeeded; the first: {self._line}",
            code="NoItemSucceeded", details=self._traceback,
        )

    @property
    def _line(self) -> str:
        return str(self.first["exception"]) if self.first else "none"

    @property
    def _traceback(self) -> str | None:
        return (self.first["traceback"] or None) if self.first else None


def start_error(failure: Failure, script: str) -> InferayError:
    """Return the error of a job whose workers cannot start."""
    code = {"Exception": "InitFailed"}.get(failure.kind, failure.kind)
    error = UserCodeError if failure.is_own else JobError
    who = "" if failure.is_own else f"no worker of {script} could start: "
    return error(f"{who}{failure.exception}", code=code, details=failure.traceback or None)


def same_failure_error(items: int, failure: Failure) -> JobError:
    """Return the error of a job that fails in the same way wherever it is tried."""
    return JobError(
        f"no item succeeded, and {items} items spread over the whole input failed in the same way: "
        f"{failure.exception}; correct the script or the input, then start a new job",
        code="SameFailureEverywhere", details=failure.traceback or None,
    )


def failure_json(
    failed: Range, items: int, count: int, attempts: int, failure: Failure
) -> dict[str, Any]:
    """Return a failure as a commit record has it: `count` of the items of the range failed."""
    return {
        "mb": failed.first, "items": list(failed.items or (0, items)), "n": count,
        "attempts": attempts, "kind": failure.kind, "exception": failure.exception,
        "traceback": failure.traceback,
    }


def _key(failure: dict[str, Any]) -> tuple[int, int]:
    return failure["mb"], failure["items"][0]
