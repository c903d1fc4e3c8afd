from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inferay import Client
from tests.cli.conftest import Served, project, served

__all__ = ["project", "served"]


@pytest.fixture
def client(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client that found the workspace by itself, as one in the same user's script does."""
    for name in ("INFERAY_URL", "INFERAY_TOKEN", "INFERAY_CA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INFERAY_HOME", str(served.plane.workspace.home))
    with Client() as client:
        yield client


@pytest.fixture
def slow(project: Path) -> Path:
    """Let the project's script wait for a file `go` beside its data; return that file."""
    go = project / "go"
    (project / "src" / "score.py").write_text(
        "import os, threading\n\ndef init():\n    pass\n\ndef run(mini_batch):\n"
        f"    while not os.path.exists({str(go)!r}):\n        threading.Event().wait(0.01)\n"
        "    return [os.path.basename(path) for path in mini_batch]\n"
    )
    return go
