"""A worker process as its parent sees it: start, lease, hang, death, with the cause of each.

The parent is a Ray actor on a cluster, or the driver itself in a local pool. It finds a hang by
the clock in the shared `Hand`, asks for the hung stack, and kills the process with all that it
started. What ended a process comes from its wait status, not from a guess.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inferay.engine.batch.child import STACK_SIGNAL
from inferay.engine.batch.hand import Hand
from inferay.engine.batch.messages import Failure, Lease, WorkerSettings
from inferay.engine.batch.scorer import thread_variables

#: `init()` may load a large model from a slow disk, but not for ever.
INIT_TIMEOUT_S = 600.0

#: How often the clock of the mini-batch in hand is read: a hang is found this much late at most.
WATCH_S = 0.05

#: How long a hung process gets to write its stack before it is killed.
STACK_WAIT_S = 0.2

#: How long a worker that is told to stop may take for `shutdown()`.
STOP_WAIT_S = 2.0

#: Signals that a process gets from its own code; any other signal is a kill from outside.
OWN_SIGNALS = {
    signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS,
    signal.SIGTRAP, signal.SIGALRM, signal.SIGPIPE, signal.SIGXCPU, signal.SIGXFSZ,
}

#: What user code must not see: the workspace's and Ray's secrets.
HIDDEN_VARIABLES = ("INFERAY_", "RAY_AUTH_TOKEN")

#: Of a hung or crashed process's stack, at most this much is kept.
STACK_BYTES_MAX = 8_192


class WorkerProcess:
    """One process with the user's code in it.

    `on_message` is called with each answer, in order, and `on_death` once, after the last message;
    both from a thread of this object. The constructor does not wait for `init()`.
    """

    def __init__(
        self, settings: WorkerSettings, *, on_message: Callable[[dict[str, Any]], None],
        on_death: Callable[[Failure, int | None], None],
    ) -> None:
        self._settings = settings
        self._on_message = on_message
        self._on_death = on_death
        self._folder = Path(tempfile.mkdtemp(prefix="inferay-worker-"))
        self._hand = Hand(self._folder / "hand", create=True)
        self._stack = open(self._folder / "stack", "w+b")  # noqa: SIM115 (`_read` closes it)
        self._suspect: int | None = None
        self._cause: Failure | None = None
        self._started_s = time.monotonic()
        self._is_ready = False
        self._is_stopping = False
        self._is_gone = False
        self._send_lock = threading.Lock()
        self._channel, theirs = socket.socketpair()
        with theirs, self._open_logs() as (stdout, stderr):
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-P", "-m", "inferay.engine.batch.child",
                 str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=stdout,
                stderr=stderr, env=self._environment(), start_new_session=True,
            )
        self._send({
            "settings": asdict(settings), "hand": str(self._folder / "hand"),
            "stack": self._stack.name,
        })
        self._reader = threading.Thread(target=self._read, name="worker-reader", daemon=True)
        self._reader.start()
        threading.Thread(target=self._watch, name="worker-watch", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id, which is the id of its process group too."""
        return self._process.pid

    def lease(self, lease: Lease) -> None:
        """Hand in a lease; its receipt comes to `on_message`, or the death to `on_death`."""
        self._send({**asdict(lease), "range": lease.range.to_json()})

    def close_input(self) -> None:
        """Tell the process that no lease follows: it finishes, runs `shutdown()` and ends."""
        self._is_stopping = True
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        """Let the process run `shutdown()` and end; kill it with its children if it lingers.

        Blocks for at most `STOP_WAIT_S`, and a little until the dead process is collected.
        """
        self.close_input()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_WAIT_S)
        self.kill()
        self._reader.join(STOP_WAIT_S)

    def kill(self) -> None:
        """Kill the process and what it started; idempotent."""
        if self._is_gone:   # its id may be another's by now
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    # -- inside

    @contextlib.contextmanager
    def _open_logs(self) -> Any:
        """Open the worker's logs where Azure has them: `stdout/<node>/processNNN.stdout.txt`."""
        paths = []
        for stream in ("stdout", "stderr"):
            folder = Path(self._settings.logs) / stream / platform.node()
            folder.mkdir(parents=True, exist_ok=True)
            paths.append(folder / f"{self._settings.log_name}.{stream}.txt")
        with open(paths[0], "ab") as out, open(paths[1], "ab") as err:
            yield out, err

    def _environment(self) -> dict[str, str]:
        settings = self._settings
        kept = {k: v for k, v in os.environ.items() if not k.startswith(HIDDEN_VARIABLES)}
        return kept | thread_variables(settings.threads) | {
            "AML_APP_ROOT": settings.code_dir,
            "AZUREML_ENTRY_SCRIPT": settings.scoring_script,
            "AZUREML_MODEL_DIR": settings.model_dir,
        } | settings.environment_variables

    def _send(self, message: dict[str, Any]) -> None:
        # A process that is gone has a closed channel; its death is told or will be.
        with self._send_lock, contextlib.suppress(OSError):
            self._channel.sendall(json.dumps(message).encode() + b"\n")

    def _read(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            for line in self._channel.makefile("r", encoding="utf-8"):
                if not line.endswith("\n"):   # it was killed while it wrote
                    break
                message = json.loads(line)
                if message["k"] == "broken":
                    self._cause = Failure(**message["failure"])
                    continue
                self._is_ready = self._is_ready or message["k"] == "ready"
                # Both sides hold its files open by now; a parent that is killed leaves nothing.
                shutil.rmtree(self._folder, ignore_errors=True)
                self._on_message(message)
        status = self._wait_for_end()
        self.kill()   # what it started dies with it
        self._is_gone = True
        in_hand = self._hand.read()[0] if self._suspect is None else self._suspect
        failure = self._cause or self._explain(status)
        self._hand.close()
        self._stack.close()
        self._channel.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._on_death(failure, in_hand)

    def _wait_for_end(self) -> int:
        """Return the wait status of a process that says no more; kill it if it lingers.

        Threads that the user's code started can hold up its end for ever.
        """
        try:
            return self._process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            if self._is_ready and not self._is_stopping and self._cause is None:
                self._cause = Failure("Exited", "run() closed the connection to its parent")
            self.kill()
            return self._process.wait()

    def _watch(self) -> None:
        """Kill the process when `init()`, or the mini-batch in hand, has run out of time.

        Ends the socket when the process is gone, for a child of the user's may hold it open.
        """
        while self._process.poll() is None:
            time.sleep(WATCH_S)
            with contextlib.suppress(ValueError):   # the cell was closed after the death
                self._check_clock()
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RD)

    def _check_clock(self) -> None:
        if self._is_stopping:
            return
        now_s = time.monotonic()
        if not self._is_ready:
            if now_s - self._started_s > INIT_TIMEOUT_S:
                self._kill_hung("InitTimeout", f"init() did not end within {INIT_TIMEOUT_S:g} s")
            return
        in_hand, since_s = self._hand.read()
        limit_s = self._settings.timeout_s
        if in_hand is not None and now_s - since_s > limit_s:
            self._suspect = in_hand   # it may end, and the next begin, while its stack is written
            self._kill_hung("Timeout", f"run() did not end within {limit_s:g} s")

    def _kill_hung(self, kind: str, message: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, STACK_SIGNAL)
        time.sleep(STACK_WAIT_S)
        self._cause = Failure(kind, message, self._read_stack())
        self.kill()
        self._process.wait()

    def _read_stack(self) -> str:
        text = os.pread(self._stack.fileno(), STACK_BYTES_MAX, 0).decode(errors="replace")
        return user_stack(text, self._settings.code_dir)

    def _explain(self, status: int) -> Failure:
        where = "run()" if self._is_ready else "init()"
        if status < 0:
            name = signal_name(-status)
            if -status in OWN_SIGNALS:
                return Failure("Crashed", f"{where} crashed with {name}", self._read_stack())
            return Failure(
                "Killed", f"the worker process was killed with {name} from outside",
                is_own=False,
            )
        return Failure("Exited", f"{where} ended the process with exit code {status}")


def signal_name(number: int) -> str:
    """Return the signal's name, or its number where it has none (real-time signals)."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def user_stack(text: str, code_dir: str) -> str:
    """Return a faulthandler dump without our own frames, paths relative to the code folder."""
    ours = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    lines = [
        line for line in text.splitlines()
        if f'File "{ours}/' not in line and 'File "<frozen' not in line
    ]
    return "\n".join(lines).replace(f'File "{code_dir}/', 'File "')
