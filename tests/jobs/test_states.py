from __future__ import annotations

import itertools
from typing import Any

import pytest

from inferay.jobs.states import JobStatus, Sighting, Verdict, judge

ERROR = {"code": "ErrorThreshold", "message": "too many"}
RESULTS: list[dict[str, Any] | None] = [
    None, {"status": "Completed"}, {"status": "Failed", "error": ERROR}, {"status": "Canceled"},
]
STATES = [None, "Preparing", "Running", "Finalizing", "Completed", "Failed", "Canceled"]
DRIVERS = ["alive", "gone", "unknown"]


def expected(
    result: dict[str, Any] | None, state: str | None, driver: str, is_cancel_wanted: bool
) -> Verdict:
    """Return what the rules say, written as the table that the documents have."""
    if result is not None:
        return Verdict(JobStatus(result["status"]), error=result.get("error"))
    table = {
        (True, "gone"): Verdict(JobStatus.CANCELED),
        (True, "alive"): Verdict(JobStatus.CANCEL_REQUESTED),
        (True, "unknown"): Verdict(JobStatus.CANCEL_REQUESTED),
        (False, "gone"): Verdict(JobStatus.QUEUED, is_resume_due=True),
    }
    if (is_cancel_wanted, driver) in table:
        return table[is_cancel_wanted, driver]
    shown = {None: "Queued", "Preparing": "Preparing", "Running": "Running"}
    return Verdict(JobStatus(shown.get(state, "Finalizing")))


@pytest.mark.parametrize(
    ("result", "state", "driver", "is_cancel_wanted"),
    list(itertools.product(RESULTS, STATES, DRIVERS, [False, True])),
)
def test_every_sighting_has_the_verdict_that_the_table_gives(
    result: dict[str, Any] | None, state: str | None, driver: str, is_cancel_wanted: bool
) -> None:
    progress = None if state is None else {"state": state}
    seen = Sighting(result, progress, driver, is_cancel_wanted)
    assert judge(seen) == expected(result, state, driver, is_cancel_wanted)


def test_a_job_ends_by_a_recorded_result_or_by_a_cancel_of_a_dead_driver_and_by_nothing_else(
) -> None:
    for result, state, driver, wanted in itertools.product(RESULTS, STATES, DRIVERS, [False, True]):
        progress = None if state is None else {"state": state}
        verdict = judge(Sighting(result, progress, driver, wanted))
        assert verdict.status.is_final == (result is not None or (wanted and driver == "gone"))
        assert not (verdict.is_resume_due and verdict.status.is_final)


def test_three_states_are_final() -> None:
    assert {s.value for s in JobStatus if s.is_final} == {"Completed", "Failed", "Canceled"}
