"""The examples, run as a newcomer runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short path: Ray's sockets take no more than 107 characters."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="demo-") as folder:
        yield Path(folder)


@pytest.mark.ray
@pytest.mark.slow
def test_the_digits_demo_reaches_its_accuracy_and_leaves_nothing_running(
    short_folder: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "digits" / "demo.py")],
        env={
            **os.environ, "DEMO_DIR": str(short_folder), "TMPDIR": str(short_folder), "KEEP": "0",
        },
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=240, check=False,
    )
    assert done.returncode == 0, done.stdout
    accuracy = re.search(r"accuracy (\d+\.\d)%: \d+ of 1500 ", done.stdout)
    assert accuracy is not None, done.stdout
    assert float(accuracy.group(1)) > 90
    assert processes_that_name(str(short_folder)) == []
