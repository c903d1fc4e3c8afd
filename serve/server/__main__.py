"""`python -m inferay.serve.server SPEC`: an inference server as a plain process.

SPEC is a file with `host`, `port`, and a `ServerSpec` as `spec`; or, for a replica of the edge, a
`ReplicaSpec` as `replica` and its `id`. What becomes of it is told in the file that `state` names:
`{"state": "Ready", "port": …}` (of a replica also `is_in`: whether the edge has taken it in), or
`Failed` with the error. SIGTERM lets it answer what is in flight, and end; a replica first leaves
the edge. With a `debug_port` a replica listens there for a debugger.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Protocol

from inferay.errors import InferayError, exit_code
from inferay.serve.replica_spec import ReplicaSpec
from inferay.serve.server import debugging
from inferay.serve.server.hosting import Hosted
from inferay.serve.server.request_log import begin_logging
from inferay.serve.server.serving import Serving
from inferay.serve.server.spec import ServerSpec

#: Of what is in flight after SIGTERM, beyond the longest request.
DRAIN_MARGIN_S = 5.0


class _Running(Protocol):
    """A server that listens."""

    @property
    def port(self) -> int: ...

    def leave_and_drain(self) -> None: ...


class _Alone:
    """A server with nothing in front of it."""

    def __init__(self, spec: ServerSpec, host: str, port: int) -> None:
        self._hosted = Hosted(spec)
        self._timeout_s = spec.limits.request_timeout_s
        self._serving = Serving(self._hosted.app, host, port)
        self._serving.start()
        self.port = self._serving.port

    def leave_and_drain(self) -> None:
        self._serving.stop(timeout_s=self._timeout_s + DRAIN_MARGIN_S)
        self._hosted.shutdown()


def main(path: Path) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    told: dict[str, Any] = json.loads(path.read_text())
    state = Path(told["state"])
    has_ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: has_ended.set())
    try:
        running, facts = _start_replica(told) if "replica" in told else _start_alone(told)
    except InferayError as error:
        print("\n".join([*([error.details] if error.details else []), error.message]),
              file=sys.stderr)
        _tell(state, {"state": "Failed", "error": error.as_dict()})
        return exit_code(error)
    _tell(state, {"state": "Ready", "port": running.port, **facts})
    has_ended.wait()
    running.leave_and_drain()
    return 0


def _start_alone(told: dict[str, Any]) -> tuple[_Running, dict[str, Any]]:
    spec = ServerSpec.from_dict(told["spec"])
    begin_logging(spec.logging_level)
    return _Alone(spec, told["host"], told["port"]), {}


def _start_replica(told: dict[str, Any]) -> tuple[_Running, dict[str, Any]]:
    from inferay.serve.member import Member  # a server alone needs no edge and no mirror

    spec = ReplicaSpec.from_dict(told["replica"])
    begin_logging(spec.server.logging_level)
    if told.get("debug_port"):
        debugging.listen(told["debug_port"])
    member = Member(spec, told["id"], host=told["host"], port=told["port"])
    is_in = member.join()
    if told.get("debug_port"):
        debugging.spare_own_threads()
    return member, {"is_in": is_in}


def _tell(path: Path, value: dict[str, Any]) -> None:
    """Write the file whole: who waits for it never reads half of it."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value))
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
