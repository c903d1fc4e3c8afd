"""Replicas as plain processes, for tests."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

from inferay.serve.replica_spec import ReplicaSpec
from inferay.serve.server.limits import Limits
from inferay.serve.server.spec import ServerSpec
from tests.serve.server.processes import Server


def replica_spec(folder: Path, script: str, **fields: object) -> ReplicaSpec:
    """Return the spec of a replica over the text of a script; `init()` may be left out."""
    folder.mkdir(parents=True, exist_ok=True)
    text = textwrap.dedent(script)
    (folder / "score.py").write_text(
        text if "def init" in text else f"def init():\n    pass\n\n{text}"
    )
    limits = fields.pop("limits", Limits(concurrent_requests_max=8, request_timeout_s=20.0))
    assert isinstance(limits, Limits)
    server = ServerSpec("svc", "1", str(folder), "score.py", limits=limits)
    values = {"endpoint": "digits", "deployment": "blue", "revision": "r1", **fields}
    return ReplicaSpec(server, **values)   # type: ignore[arg-type]


def start(folder: Path, replica_id: str, spec: ReplicaSpec) -> Server:
    """Start a replica of the edge as a process; its folder is made."""
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps({
        "replica": spec.to_dict(), "id": replica_id, "host": "127.0.0.1", "port": 0,
        "state": str(folder / "state.json"),
    }))
    with (folder / "stderr.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "inferay.serve.server", str(folder / "spec.json")],
            stdout=subprocess.DEVNULL, stderr=errors, text=True,
        )
    return Server(process, folder)
