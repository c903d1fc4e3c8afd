from __future__ import annotations

from pathlib import Path

from inferay.engine.batch.dispatch import Counts
from inferay.engine.batch.logs import FAILURES_MAX, write_logs


def test_the_users_tracebacks_and_the_counts_are_where_azure_has_them(tmp_path: Path) -> None:
    failure = {
        "mb": 3, "items": [0, 1], "attempts": 4, "exception": "ValueError: bad",
        "traceback": "Traceback\n  File \"score.py\", line 1",
    }
    write_logs(
        tmp_path, status="Failed", counts=Counts(5, 4, 1, 4, 3, 2), mini_batches=9,
        error={"message": "too many", "details": [{"message": "the first traceback"}]},
        failures=[failure] * (FAILURES_MAX + 1),
    )
    error = (tmp_path / "user" / "error.txt").read_text()
    assert error.startswith("the first traceback\n\ntoo many\n\nmini-batch 3, items 0 to 0, 4 att")
    assert error.count("ValueError: bad") == FAILURES_MAX
    assert error.endswith("More items failed: see errors.jsonl in the output.\n")
    overview = (tmp_path / "job_progress_overview.txt").read_text()
    assert "mini-batches: 5 of 9 done" in overview
    assert "items: 4 succeeded, 1 failed" in overview
