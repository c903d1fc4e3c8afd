"""`python -m inferay.keeper CONFIG`: a workspace's edge, which also keeps the control plane up.

It renews the server's certificate as well: nobody may call `up` for years. The control plane keeps
the edge process up in turn; HAProxy carries requests without either.
"""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path

from inferay.config import Workspace
from inferay.edge_process import renew_certificate
from inferay.errors import InferayError
from inferay.launcher import revive_control
from inferay.serve.edge.__main__ import main as run_edge

log = logging.getLogger("inferay.keeper")

#: How often the control plane is looked at.
LOOK_S = 1.0
#: How often the certificate is looked at, of these looks: it is renewed a month before its end.
LOOKS_PER_RENEWAL = 3600


def main(path: Path) -> int:
    """Keep both until a signal ends this process; return the exit code."""
    has_ended = threading.Event()
    workspace = Workspace.from_environment()
    care = threading.Thread(target=_look_after, args=(workspace, has_ended), daemon=True)
    care.start()
    try:
        return run_edge(path)
    finally:
        has_ended.set()


def _look_after(workspace: Workspace, has_ended: threading.Event) -> None:
    looks = 0
    while not has_ended.wait(LOOK_S):
        looks += 1
        try:
            if looks % LOOKS_PER_RENEWAL == 0:
                renew_certificate(workspace)
            if revive_control(workspace):
                log.warning("the control plane was gone; it was started again")
        except InferayError as error:
            log.error("%s", error.message)
        except Exception:   # the care must outlive any one trouble
            log.exception("the control plane cannot be looked after")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
