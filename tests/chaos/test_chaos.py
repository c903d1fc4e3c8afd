"""A few trials of `make chaos`: whole jobs on real Ray nodes that are killed and frozen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import radosgw
from tests.services import skip_without

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def said() -> str:
    """What two trials said, on one cluster: every kind of fault but one.

    The last one is on S3; where there is no server for it, it is left out.
    """
    return run_trials(first=24, count=1 if radosgw.missing_program() else 2)


def test_jobs_under_kills_of_workers_drivers_and_a_node_end_exact(said: str) -> None:
    assert "table on local" in said


def test_a_job_on_s3_under_kills_and_failed_requests_ends_exact(said: str) -> None:
    skip_without(radosgw.missing_program())
    assert "files on s3 (with its input, 2% faults)" in said


def run_trials(*, first: int, count: int) -> str:
    """Run trials in a process of its own, whose environment the cluster takes hold of."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--trials", str(count), "--from", str(first),
         "--no-record"],
        cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "src:."}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"{count} of {count} outputs exact" in done.stdout
    return done.stdout
