"""Specs of replicas, for tests."""

from __future__ import annotations

import textwrap
from pathlib import Path

from inferay.serve.replica_spec import ReplicaSpec
from inferay.serve.server.limits import Limits
from inferay.serve.server.spec import ServerSpec


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
