"""Poison items in whole jobs with real worker processes: isolated, named, and the rest is exact."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.batch.memory import MB
from inferay.engine.batch.result import Result
from inferay.engine.batch.spec import JobSpec

MakeSpec = Callable[..., JobSpec]
RunJob = Callable[..., Result]

SCRIPT = """
    import ctypes, os, time

    def init():
        pass

    def run(mini_batch):
        rows = []
        for path in mini_batch:
            number = int(open(path).read())
            {body}
            rows.append(str(number))
        return rows
"""

ENDS = {
    "Timeout": "time.sleep(1000)",
    "Crashed": "ctypes.string_at(0)",
    "OutOfMemory": "leak = []; [leak.append(bytearray(10 << 20)) for _ in range(1000)]",
    "Exception": "raise ValueError('no such thing')",
    "Exited": "os._exit(3)",
    "Killed": "os.kill(os.getpid(), 9)",
}


def script_of(ends: dict[int, str]) -> str:
    body = " ".join(
        f"\n            if number == {number}: {ENDS[kind]}" for number, kind in ends.items()
    )
    return SCRIPT.format(body=body.strip())


def errors(spec: JobSpec) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in Path(spec.output, "errors.jsonl").read_text().splitlines()
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_four_kinds_of_poison_among_two_thousand_items_cost_four_rows(
    make_spec: MakeSpec, run_job: RunJob
) -> None:
    ends = {17: "Timeout", 503: "Crashed", 1200: "OutOfMemory", 1999: "Exception"}
    spec = make_spec(
        script_of(ends), files=2_000, mini_batch_size=10, max_retries=1, timeout_s=1.5,
        memory_bytes=150 * MB,
    )
    result = run_job(spec)
    assert (result.status, result.counts.items_ok, result.counts.items_failed) == (
        "Completed", 1_996, 4
    )
    rows = Path(spec.output, "predictions.csv").read_text().splitlines()
    assert rows == [str(number) for number in range(2_000) if number not in ends]
    found = errors(spec)
    assert [(one["item"], one["kind"]) for one in found] == [
        (f"{number:04d}.txt", kind) for number, kind in ends.items()
    ]
    assert [one["mini_batch"] for one in found] == [1, 50, 120, 199]
    # Two of the mini-batch, then its parts: of 10 items, the fourth and the last lie 4 cuts deep.
    assert [one["attempts"] for one in found] == [2 + 3, 2 + 4, 2 + 3, 2 + 4]
    assert all('File "score.py"' in one["traceback"] for one in found)
    assert {one["version"] for one in found} == {1}


@pytest.mark.parametrize("kind", ["Crashed", "Exited", "Exception", "Killed"])
def test_several_poison_items_in_one_large_mini_batch_are_isolated(
    make_spec: MakeSpec, run_job: RunJob, kind: str
) -> None:
    ends = dict.fromkeys((0, 1, 37, 63), kind) if kind != "Killed" else {37: kind}
    spec = make_spec(script_of(ends), files=70, mini_batch_size=64)
    result = run_job(spec)
    assert (result.status, result.counts.items_failed) == ("Completed", len(ends))
    assert [(one["item"], one["kind"]) for one in errors(spec)] == [
        (f"{number:04d}.txt", kind) for number in ends
    ]
    rows = Path(spec.output, "predictions.csv").read_text().splitlines()
    assert rows == [str(number) for number in range(70) if number not in ends]


def test_a_script_that_fails_everywhere_stops_its_job_within_seconds(
    make_spec: MakeSpec, run_job: RunJob
) -> None:
    spec = make_spec(
        SCRIPT.format(body="raise KeyError(number)"), files=3_000, mini_batch_size=1,
        max_retries=3,
    )
    began_s = time.monotonic()
    result = run_job(spec)
    assert time.monotonic() - began_s < 30   # scoring them all would be 12,000 leases
    assert (result.status, result.error["code"]) == (   # type: ignore[index]
        "Failed", "SameFailureEverywhere"
    )
    assert "30 items spread over the whole input" in result.error["message"]   # type: ignore[index]
    details = result.error["details"]   # type: ignore[index]
    assert 'File "score.py", line 11, in run' in details[0]["message"]
    assert result.counts.items_failed < 500


def test_memory_that_init_does_not_find_room_for_fails_the_job_and_names_the_setting(
    make_spec: MakeSpec, run_job: RunJob
) -> None:
    spec = make_spec("""
        def init():
            global model
            model = b"x" * (2 << 30)

        def run(mini_batch):
            return mini_batch
    """, memory_bytes=200 * MB)
    result = run_job(spec)
    assert (result.status, result.error["code"]) == ("Failed", "OutOfMemory")   # type: ignore[index]
    assert "inferay.worker_memory_mb" in result.error["message"]   # type: ignore[index]
