"""A job's progress for people: a bar on a terminal, plain lines elsewhere, then the outcome."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

if TYPE_CHECKING:
    from inferay.client.jobs import Job

#: Elsewhere than on a terminal, a line at most so often.
LINE_S = 5.0


def stream(job: Job, out: TextIO | None = None) -> None:
    """Show the job until it has ended, then its outcome, first error and output."""
    console = Console(file=out or sys.stdout, highlight=False, soft_wrap=True)
    if console.is_terminal:
        _stream_bar(job, console)
    else:
        _stream_lines(job, console)
    for line in outcome(job):
        console.print(line, markup=False)


def outcome(job: Job) -> list[str]:
    """Return the lines that tell how a job ended: the user's own traceback first."""
    view = job.to_dict()
    lines: list[str] = []
    if job.error is not None:
        lines += [detail["message"].rstrip() for detail in job.error.get("details") or []]
        lines.append(job.error["message"])
    counts = job.progress.get("counts") or {}
    output = view["outputs"]["score"]["path"]
    lines.append(
        f"Job {job.name}: {view['status']}. {counts.get('items_ok', 0)} items ok, "
        f"{counts.get('items_failed', 0)} failed, {counts.get('rows', 0)} rows."
    )
    first = job.progress.get("first_error")
    if view["status"] == "Completed":
        if first is not None:
            lines.append(f"First failed item: {first['exception']} (all: {output}/errors.jsonl)")
        lines.append(f"Output: {output}")
    elif counts.get("rows"):
        lines.append(f"Rows so far: {output}, in the file that ends with .partial")
    return lines


def _stream_lines(job: Job, console: Console) -> None:
    said, said_s = "", 0.0
    for _ in job.watch():
        line = f"{job.to_dict()['status']}: {_describe(job)}"
        is_new_state = line.split(":")[0] != said.split(":")[0]
        if line != said and (is_new_state or time.monotonic() - said_s >= LINE_S):
            console.print(line, markup=False)
            said, said_s = line, time.monotonic()


def _stream_bar(job: Job, console: Console) -> None:
    # The description wraps where the terminal is narrow: all of it is wanted.
    columns = (
        TextColumn("{task.fields[status]}", markup=False), BarColumn(bar_width=16),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=False)),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, status="Queued")
        for _ in job.watch():
            progress = job.progress
            bar.update(
                task, description=_describe(job), status=job.to_dict()["status"],
                total=progress.get("mini_batches") or None,
                completed=(progress.get("counts") or {}).get("mini_batches_done", 0),
            )


def _describe(job: Job) -> str:
    progress: dict[str, Any] = job.progress
    waiting = job.to_dict().get("waiting_for")
    if not progress.get("mini_batches"):
        return waiting or "starting"
    counts = progress["counts"]
    parts = [
        f"{counts['mini_batches_done']}/{progress['mini_batches']} mini-batches",
        f"{counts['items_ok']} items ok",
        f"{counts['items_failed']} failed",
        f"{progress['items_per_s']:.0f} items/s",
    ]
    if progress.get("seconds_left") is not None:
        parts.append(f"{progress['seconds_left']:.0f} s left")
    parts.append(f"{progress['workers_ready']}/{progress['workers_wanted']} workers")
    if waiting:
        parts.append(waiting)
    return ", ".join(parts)
