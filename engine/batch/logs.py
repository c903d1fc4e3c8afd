"""The two logs of a batch job that Azure's users open first.

`user/error.txt` has the user's own tracebacks; `job_progress_overview.txt` how far the job came.
What each worker printed is beside them, in `user/stdout` and `user/stderr`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inferay.engine.batch.dispatch import Counts

#: Failures that `error.txt` tells of; `errors.jsonl` has all of them.
FAILURES_MAX = 100


def write_logs(
    folder: Path, *, status: str, counts: Counts, mini_batches: int,
    error: dict[str, Any] | None, failures: Iterable[dict[str, Any]],
) -> None:
    """Write both logs anew.

    Raises:
        OSError: The folder cannot be written.
    """
    (folder / "user").mkdir(parents=True, exist_ok=True)
    overview = (
        f"status: {status}\n"
        f"mini-batches: {counts.mini_batches_done} of {mini_batches} done\n"
        f"items: {counts.items_ok} succeeded, {counts.items_failed} failed\n"
        f"rows: {counts.rows}\n"
        f"retries: {counts.retries}\n"
        f"worker processes that died: {counts.deaths}\n"
    )
    (folder / "job_progress_overview.txt").write_text(overview)
    texts = []
    if error is not None:
        texts += [detail["message"] for detail in error["details"]]
        texts.append(error["message"])
    for number, failure in enumerate(failures):
        if number == FAILURES_MAX:
            texts.append("More items failed: see errors.jsonl in the output.")
            break
        texts.append(
            f"mini-batch {failure['mb']}, items {failure['items'][0]} to "
            f"{failure['items'][1] - 1}, {failure['attempts']} attempts: {failure['exception']}\n"
            f"{failure['traceback']}"
        )
    text = "\n\n".join(text.rstrip() for text in texts)
    (folder / "user" / "error.txt").write_text(f"{text}\n" if text else "", errors="replace")
