from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from inferay.client import streaming
from inferay.client.jobs import Job
from inferay.client.streaming import outcome, stream

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def view(status: str, done: int | None = None, **more: Any) -> dict[str, Any]:
    progress = None if done is None else {
        "mini_batches": 4, "items_per_s": 12.4, "seconds_left": 3.0, "workers_ready": 1,
        "workers_wanted": 2, "first_error": more.pop("first_error", None),
        "counts": {"mini_batches_done": done, "items_ok": done * 5, "items_failed": 0,
                   "rows": done * 5},
    }
    properties = {
        "status": status, "displayName": "j", "experimentName": "e", "endpointName": "e",
        "deploymentName": "d", "inputs": {}, "tags": {}, "properties": {}, "resumes": 0,
        "outputs": {"score": {"path": "/out/[bold]x", "uri": "file:///out"}},
        "startTime": "t", "endTime": None, "waitingFor": None, "progress": progress,
        "error": None, **more,
    }
    return {"id": "/jobs/j", "name": "j", "properties": properties}


class Scripted(Job):
    """A job with these looks."""

    def __init__(self, *views: dict[str, Any]) -> None:
        super().__init__(None, views[0])   # type: ignore[arg-type]
        self._views = views

    def watch(self) -> Iterator[Job]:
        for found in self._views:
            self._view = found
            yield self


ERROR = {"code": "UserScriptError", "message": "init() failed",
         "details": [{"message": "Traceback\n  File \"score.py\", line 1\nKeyError: [red]\n"}]}
FIRST = {"exception": "ValueError: [bad] row"}


def lines_of(*views: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    stream(Scripted(*views), out)
    assert "\x1b" not in out.getvalue()
    return out.getvalue().splitlines()


def test_elsewhere_than_on_a_terminal_each_new_state_is_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = lines_of(
        view("Queued", waitingFor="no node has a GPU"), view("Queued"), view("Running", 0),
        view("Running", 1), view("Running", 1), view("Completed", 4),
    )
    assert said == [
        "Queued: no node has a GPU",
        "Running: 0/4 mini-batches, 0 items ok, 0 failed, 12 items/s, 3 s left, 1/2 workers",
        "Completed: 4/4 mini-batches, 20 items ok, 0 failed, 12 items/s, 3 s left, 1/2 workers",
        "Job j: Completed. 20 items ok, 0 failed, 20 rows.",
        "Output: /out/[bold]x",
    ]
    monkeypatch.setattr(streaming, "LINE_S", 0.0)
    assert len(lines_of(view("Running", 0), view("Running", 1), view("Running", 1),
                        view("Completed", 4))) == 5   # a repeat is not said again


def test_on_a_terminal_a_bar_runs_and_ends_before_the_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        streaming, "Console",
        lambda **options: Console(**options, force_terminal=True, width=200, color_system=None),
    )
    out = io.StringIO()
    stream(Scripted(view("Queued"), view("Running", 2), view("Completed", 4)), out)
    raw = out.getvalue()
    assert "\x1b[?25l" in raw                                 # the cursor is hidden
    assert raw.rindex("\x1b[?25h") < raw.index("Job j: Comp")   # and shown again when the bar ends
    text = ANSI.sub("", raw)
    assert "4/4 mini-batches, 20 items ok" in text
    assert text.splitlines()[-1] == "Output: /out/[bold]x"
    assert "Job j: Completed. 20 items ok, 0 failed, 20 rows." in text


def test_the_bar_ends_when_the_watch_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        streaming, "Console",
        lambda **options: Console(**options, force_terminal=True, width=200, color_system=None),
    )

    class Lost(Scripted):
        def watch(self) -> Iterator[Job]:
            yield self
            raise ConnectionError("gone")

    out = io.StringIO()
    with pytest.raises(ConnectionError):
        stream(Lost(view("Running", 1)), out)
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h") == 1


def test_a_failed_job_tells_the_traceback_then_the_reason_then_where_the_rows_are() -> None:
    assert outcome(Scripted(view("Failed", 2, error=ERROR))) == [
        'Traceback\n  File "score.py", line 1\nKeyError: [red]', "init() failed",
        "Job j: Failed. 10 items ok, 0 failed, 10 rows.",
        "Rows so far: /out/[bold]x, in the file that ends with .partial",
    ]
    said = lines_of(view("Failed", error=ERROR))
    assert said[-1] == "Job j: Failed. 0 items ok, 0 failed, 0 rows."


def test_a_completed_job_names_its_first_failed_item() -> None:
    assert outcome(Scripted(view("Completed", 4, first_error=FIRST)))[-2:] == [
        "First failed item: ValueError: [bad] row (all: /out/[bold]x/errors.jsonl)",
        "Output: /out/[bold]x",
    ]


def test_a_canceled_job_that_did_nothing_says_just_that() -> None:
    assert outcome(Scripted(view("Canceled"))) == [
        "Job j: Canceled. 0 items ok, 0 failed, 0 rows."
    ]
