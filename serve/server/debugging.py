"""A debugger in the inference server: breakpoints in the user's code, and the edge still answered.

debugpy stops every thread at a breakpoint. Those that keep the server in the edge go on all the
same, where no user code runs in them: an `async` script's own thread is the server's.
"""

from __future__ import annotations

import threading

from inferay.errors import InvalidInput

#: Who the edge hears of, and what keeps the log in bounds.
_OWN_THREADS = frozenset({"MainThread", "registration", "replica-log", "server"})


def listen(port: int) -> None:
    """Listen for a debugger on this port of loopback; returns at once.

    Raises:
        InvalidInput: debugpy is not installed.
    """
    try:
        import debugpy
    except ModuleNotFoundError:
        raise InvalidInput(
            "debugging needs debugpy, which is not installed; pip install 'inferay[debug]'"
        ) from None
    debugpy.listen(("127.0.0.1", port))


def spare_own_threads() -> None:
    """Keep the threads that are not the user's out of what a breakpoint stops."""
    for thread in threading.enumerate():
        if thread.name in _OWN_THREADS:
            thread.pydev_do_not_trace = True   # type: ignore[attr-defined]   # pydevd's own mark
