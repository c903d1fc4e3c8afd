"""The examples and the README's commands, run as a newcomer runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.services import require_program

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


def run_to_end(
    command: list[str], folder: Path, limit_s: float, **variables: str
) -> tuple[int, str]:
    """Run a command in a folder; return its exit code and all that it printed.

    One that takes too long is asked to end, so that it ends what it started.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PATH": path, **variables},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, _ = process.communicate(timeout=60)
    return process.returncode, output


@pytest.mark.ray
@pytest.mark.slow
def test_the_digits_demo_shows_what_it_promises_and_leaves_nothing_running(tmp_path: Path) -> None:
    require_program("curl")
    demo = [sys.executable, str(ROOT / "examples" / "digits" / "demo.py")]
    # What the demo starts inherits DEMO_DIR: that is how it is found.
    code, output = run_to_end(demo, tmp_path, 300, DEMO_DIR=str(tmp_path), KEEP="0")
    assert code == 0, output
    accuracy = re.search(r"accuracy (\d+\.\d)%: \d+ of 1500 ", output)
    assert accuracy is not None, output
    assert float(accuracy.group(1)) > 90
    assert "blue answered 400 of 400 requests" in output
    agreement = re.search(r"agreement +(\d+\.\d+)% ", output)
    assert agreement is not None, output
    assert 70 < float(agreement.group(1)) < 100   # of two models, on half of 400 images by chance
    green = re.search(r"green answered (\d+) of 500 requests", output)
    assert green is not None, output
    assert 25 <= int(green.group(1)) <= 75
    assert re.search(r'^\[{"digit": 0, .*{"digit": 1, ', output, re.M), output   # to curl
    assert processes_that_name(str(tmp_path)) == []


def readme_blocks() -> list[tuple[str, str]]:
    """Return the README's fenced blocks: language and text."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)


def write_readme_files(folder: Path) -> None:
    """Write the blocks that name their file in the first line, such as `# src/score.py`."""
    for _, text in readme_blocks():
        named = re.match(r"# ([\w./-]+\.(?:py|yml))\n", text)
        if named is not None:
            path = folder / named.group(1)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@pytest.mark.ray
@pytest.mark.slow
def test_the_readme_s_commands_give_the_same_bytes_in_every_way(tmp_path: Path) -> None:
    require_program("curl")
    write_readme_files(tmp_path)
    blocks = readme_blocks()
    [expected] = [text for language, text in blocks if language == ""]
    commands = [text for language, text in blocks if language == "bash"]
    script = "\n".join(["set -euxo pipefail", "trap 'inferay down' EXIT", *commands])
    home = str(tmp_path / "home")
    code, output = run_to_end(["bash", "-c", script], tmp_path, 250, INFERAY_HOME=home, MARK=home)
    assert code == 0, output
    downloads = ("out", "by-curl", "by-client")
    places = [*(f"{name}/named-outputs/score" for name in downloads), "by-engine", "by-ray"]
    for place in places:
        assert (tmp_path / place / "predictions.csv").read_text() == expected, place
    assert processes_that_name(home) == []
