"""The examples, run as a newcomer runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]


def processes_that_name(marker: str) -> list[str]:
    """Return the processes with a text in their environment or command line."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except (psutil.Error, OSError):
            continue   # it ended, or belongs to another user
        if any(marker in word for word in words):
            found.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
    return found


@pytest.mark.ray
@pytest.mark.slow
def test_the_digits_demo_reaches_its_accuracy_and_leaves_nothing_running(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "digits" / "demo.py")],
        env={**os.environ, "DEMO_DIR": str(tmp_path), "KEEP": "0"},   # inherited by all it starts
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=240, check=False,
    )
    assert done.returncode == 0, done.stdout
    accuracy = re.search(r"accuracy (\d+\.\d)%: \d+ of 1500 ", done.stdout)
    assert accuracy is not None, done.stdout
    assert float(accuracy.group(1)) > 90
    assert processes_that_name(str(tmp_path)) == []
