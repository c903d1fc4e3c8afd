"""`python -m inferay.serve.server SPEC`: an inference server as a plain process.

SPEC is a file with a `ServerSpec`, `host` and `port`. What becomes of it is told in the file that
`state` names: `{"state": "Ready", "port": …}`, or `Failed` with the error. SIGTERM lets it answer
what is in flight, and end.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from inferay.errors import InferayError, exit_code
from inferay.serve.server.hosting import Hosted
from inferay.serve.server.serving import Serving
from inferay.serve.server.spec import ServerSpec

#: Of what is in flight after SIGTERM, beyond the longest request.
DRAIN_MARGIN_S = 5.0


def main(path: Path) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    told: dict[str, Any] = json.loads(path.read_text())
    spec, state = ServerSpec.from_dict(told["spec"]), Path(told["state"])
    logging.basicConfig(
        level=spec.logging_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    has_ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: has_ended.set())
    try:
        hosted = Hosted(spec)
        serving = Serving(hosted.app, told["host"], told["port"])
        serving.start()
    except InferayError as error:
        print("\n".join([*([error.details] if error.details else []), error.message]),
              file=sys.stderr)
        _tell(state, {"state": "Failed", "error": error.as_dict()})
        return exit_code(error)
    except OSError as error:
        print(f"cannot listen on port {told['port']}: {error}", file=sys.stderr)
        _tell(state, {"state": "Failed", "error": {
            "code": "PortInUse", "message": f"cannot listen on port {told['port']}: {error}",
            "target": None, "details": [],
        }})
        return 1
    _tell(state, {"state": "Ready", "port": serving.port})
    has_ended.wait()
    serving.stop(timeout_s=spec.limits.request_timeout_s + DRAIN_MARGIN_S)
    hosted.shutdown()
    return 0


def _tell(path: Path, value: dict[str, Any]) -> None:
    """Write the file whole: who waits for it never reads half of it."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value))
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
