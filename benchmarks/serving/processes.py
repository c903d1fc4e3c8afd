"""Processes that serve, in groups of their own, ended with all that they started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.serving.load import Target

ROOT = Path(__file__).parents[2]

#: Loading MLflow's or Ray's imports on two cores takes this long at worst.
START_S = 120.0

#: Ray Serve's HAProxy outlives a cluster that is not shut down.
END_S = 30.0


def variables(more: Mapping[str, str]) -> dict[str, str]:
    """Return this process's variables, by which the benchmarks can be imported, and more."""
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", **more}


@contextlib.contextmanager
def process(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command; afterwards end it and everything in its group."""
    with log.open("ab") as output:
        running = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            env=variables(environment or {}), cwd=ROOT, start_new_session=True,
        )
    try:
        yield running
    finally:
        running.terminate()   # it ends what it started, in groups of their own too
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(END_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def wait_for(target: Target, running: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a target answers as expected.

    Raises:
        RuntimeError: It ended, or did not in time; with the end of its log.
    """
    until_s = time.monotonic() + START_S
    said: object = None
    while running.poll() is None and time.monotonic() < until_s:
        request = urllib.request.Request(
            target.url, target.body, {"Content-Type": "application/json", **target.headers}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                said = json.loads(answer.read())
            if target.expected is None or said == target.expected:
                return
        except (OSError, urllib.error.HTTPError) as error:
            said = error
        time.sleep(0.2)
    raise RuntimeError(f"{target.name} does not answer: {said}\n{log.read_text()[-3000:]}")
