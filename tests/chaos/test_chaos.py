"""A few trials of `make chaos`: whole jobs on real Ray nodes that are killed and frozen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_jobs_under_kills_of_workers_drivers_and_a_node_end_exact() -> None:
    """In a process of its own, for a cluster takes hold of its process's environment."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--trials", "3", "--from", "6", "--no-record"],
        cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "src:."}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "3 of 3 outputs exact" in done.stdout
