"""Ray Serve's log handlers, kept alive whatever the user's code does to `logging`.

`logging.config.dictConfig` closes every handler of the process. Serve's then has no file, and a
controller that restarts reads the file's name from every replica, fails, and stops them all: an
outage (seen with Ray 2.60).
"""

from __future__ import annotations

import logging
from logging.handlers import MemoryHandler

SERVE_LOGGER = "ray.serve"

#: Loggers that `dictConfig` disables, unless it is told not to.
_KEPT = (SERVE_LOGGER, "inferay.server", "inferay.replica", "inferay.mirror")


def protect_serve_handlers() -> None:
    """Let closing Serve's handlers only flush them; cheap and idempotent.

    Serve makes new ones when its logging is configured again, so this is done now and then.
    """
    for handler in logging.getLogger(SERVE_LOGGER).handlers:
        if isinstance(handler, MemoryHandler):
            for one in (handler, handler.target):
                if one is not None:
                    one.close = one.flush   # type: ignore[method-assign]
    for name in _KEPT:
        logging.getLogger(name).disabled = False
