"""Inference servers as plain processes, for tests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferay.serve.server.limits import Limits
from inferay.serve.server.spec import ServerSpec

START_S = 20.0


@dataclass
class Server:
    """A process, and the folder with its spec and state."""

    process: subprocess.Popen[str]
    folder: Path

    def state(self) -> dict[str, Any]:
        """Return what it tells of itself; waits for it."""
        deadline_s = time.monotonic() + START_S
        while not (self.folder / "state.json").exists():
            assert time.monotonic() < deadline_s, self.process.poll()
            time.sleep(0.01)
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return found

    @property
    def url(self) -> str:
        """Where it answers; waits until it does."""
        return f"http://127.0.0.1:{self.state()['port']}"

    def end(self) -> str:
        """Wait until it has ended; return what it wrote to stderr."""
        self.process.wait(START_S)
        return self.errors.read_text()

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def errors(self) -> Path:
        """The file with what it wrote to stderr: a pipe that nobody reads would block it."""
        return self.folder / "stderr.txt"


def start(folder: Path, code: str, port: int = 0) -> Server:
    """Start a server over the text of a script, in a folder that is made."""
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "score.py").write_text(code)
    spec = ServerSpec(
        name="svc", version="1", code_dir=str(folder / "code"), scoring_script="score.py",
        model_dir="/models/m", environment_variables={"GREETING": "hello"},
        limits=Limits(request_timeout_s=30),
    )
    (folder / "spec.json").write_text(json.dumps({
        "spec": spec.to_dict(), "host": "127.0.0.1", "port": port,
        "state": str(folder / "state.json"),
    }))
    with (folder / "stderr.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "inferay.serve.server", str(folder / "spec.json")],
            stdout=subprocess.DEVNULL, stderr=errors, text=True,
        )
    return Server(process, folder)
