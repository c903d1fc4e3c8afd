"""A worker process as its parent sees it: start, lease, hang, death, with the cause of each.

The parent is a Ray actor on a cluster, or the driver itself in a local pool. It finds a hang by
the clock in the shared `Hand` and a leak by the memory of the process and all that it started, asks
for the user's stack, and kills them all. What ended a process by itself comes from its wait status,
not from a guess.
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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from inferay.engine.batch.child import STACK_SIGNAL
from inferay.engine.batch.hand import Hand
from inferay.engine.batch.leftovers import MARK, kill_group, kill_leftovers
from inferay.engine.batch.memory import MB, PROCESSES_MAX, WORKER_MEMORY, MemoryWatch, oom_kills
from inferay.engine.batch.messages import Failure, Lease, WorkerSettings
from inferay.engine.batch.scorer import thread_variables
from inferay.engine.batch.scratch import SUFFIX as SCRATCH_SUFFIX

#: `init()` may load a large model from a slow disk, but not for ever.
INIT_TIMEOUT_S = 600.0

#: How often the clock of the mini-batch in hand and the memory are read: a hang is found this much
#: late at most, and 5 GB/s, the fastest leak, passes the limit by 250 MB.
WATCH_S = 0.05

#: How often the kernel's count of processes killed for want of memory is read.
OOM_LOOK_S = 1.0

#: How long a hung process gets to write its stack before it is killed; most take a hundredth.
STACK_WAIT_S = 0.2
STACK_POLL_S = 0.005

#: How long a process may live that has closed the connection to its parent unasked.
CLOSED_WAIT_S = 0.5

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
        self._scratch = Path(f"{self._folder}{SCRATCH_SUFFIX}")
        self._hand = Hand(self._folder / "hand", create=True)
        self._stack = open(self._folder / "stack", "w+b")  # noqa: SIM115 (`_read` closes it)
        self._suspect: int | None = None
        self._cause: Failure | None = None
        self._started_s = time.monotonic()
        self._oom_kills = oom_kills()
        self._oom_looked_s = self._started_s
        self._is_ready = False
        self._is_stopping = False
        self._is_gone = False
        self._has_ended = threading.Event()
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
            "stack": self._stack.name, "scratch": str(self._scratch),
        })
        self._reader = threading.Thread(target=self._read, name="worker-reader", daemon=True)
        self._memory = MemoryWatch(self._process.pid)
        self._watcher = threading.Thread(target=self._watch, name="worker-watch", daemon=True)
        self._watcher.start()
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id, which is the id of its process group too."""
        return self._process.pid

    @property
    def used_bytes(self) -> int:
        """Memory of the process and of what it started, when it was last looked at."""
        return self._memory.used_bytes

    def look(self) -> dict[str, Any]:
        """Return what it has in hand, for how long, and the memory that it uses, as JSON can."""
        in_hand, since_s = None, 0.0
        with contextlib.suppress(ValueError):   # the cell was closed after the death
            in_hand, since_s = self._hand.read()
        return {
            "in_hand": in_hand,
            "in_hand_s": 0.0 if in_hand is None else time.monotonic() - since_s,
            "memory_bytes": self.used_bytes,
        }

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
        if not self._is_gone:   # else its id may be another's by now
            kill_group(self._process.pid)

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
            MARK: str(self._folder),
        } | settings.environment_variables

    def _send(self, message: dict[str, Any]) -> None:
        # A process that is gone has a closed channel; its death is told or will be.
        with self._send_lock, contextlib.suppress(OSError):
            self._channel.sendall(json.dumps(message).encode() + b"\n")

    def _read(self) -> None:
        self._take_messages()
        if self._suspect is None:
            self._suspect = self._hand.read()[0]
        status = self._wait_for_end()
        self._has_ended.set()
        self._watcher.join()   # it may be about to say why it killed the process
        self.kill()   # what it started dies with it
        kill_leftovers(str(self._folder), self._memory.descendants)
        self._is_gone = True
        failure = self._cause or self._explain(status)
        self._hand.close()
        self._stack.close()
        self._channel.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._on_death(failure, self._suspect)

    def _take_messages(self) -> None:
        """Hand on what the process says, until it says no more."""
        with contextlib.suppress(ConnectionResetError):
            for line in self._channel.makefile("r", encoding="utf-8", errors="replace"):
                if not line.endswith("\n"):   # it was killed while it wrote
                    return
                try:
                    message = json.loads(line)
                    kind = message["k"]
                except (ValueError, LookupError, TypeError):
                    self._cause = Failure(
                        "Exited", "user code wrote into the connection of its worker process"
                    )
                    self.kill()
                    return
                if kind == "broken":
                    self._cause = Failure(**message["failure"])
                    continue
                self._is_ready = self._is_ready or kind == "ready"
                # Both sides hold its files open by now; a parent that is killed leaves nothing.
                shutil.rmtree(self._folder, ignore_errors=True)
                self._on_message(message)

    def _wait_for_end(self) -> int:
        """Return the wait status of a process that says no more; kill it if it lingers.

        Threads that the user's code started can hold up its end for ever.
        """
        is_asked = self._is_stopping or not self._is_ready or self._cause is not None
        try:
            return self._process.wait(STOP_WAIT_S if is_asked else CLOSED_WAIT_S)
        except subprocess.TimeoutExpired:
            if not is_asked and self._cause is None:
                self._cause = Failure("Exited", "run() closed the connection to its parent")
            self.kill()
            return self._process.wait()

    def _watch(self) -> None:
        """Kill the process when it, or the mini-batch in hand, has run out of time or memory.

        Ends the socket when the process is gone, for a child of the user's may hold it open.
        """
        while self._process.poll() is None and not self._has_ended.wait(WATCH_S):
            if not self._is_stopping and self._cause is None:
                self._check_memory()
                self._check_clock()
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RD)

    def _check_memory(self) -> None:
        now_s = time.monotonic()
        if now_s - self._oom_looked_s > OOM_LOOK_S:
            self._oom_kills, self._oom_looked_s = oom_kills(), now_s
        limit_bytes = self._settings.memory_limit_bytes
        self._memory.look(limit_bytes, now_s)
        if len(self._memory.descendants) >= PROCESSES_MAX:
            self._suspect = self._hand.read()[0]
            self._kill_with_stack(Failure(
                "TooManyProcesses", f"{self._where} had {PROCESSES_MAX} processes or more"
            ))
        elif limit_bytes is not None and self._memory.used_bytes > limit_bytes:
            self._suspect = self._hand.read()[0]
            self._kill_with_stack(Failure(
                "OutOfMemory",
                f"{self._where} used {self._memory.used_bytes // MB:,} MB, more than the limit of "
                f"{limit_bytes // MB:,} MB of its worker; take a larger instance_type, fewer "
                "workers per instance (max_concurrency_per_instance), or set the deployment's "
                f"property {WORKER_MEMORY}",
            ))

    def _check_clock(self) -> None:
        now_s = time.monotonic()
        if not self._is_ready:
            if now_s - self._started_s > INIT_TIMEOUT_S:
                self._kill_with_stack(
                    Failure("InitTimeout", f"init() did not end within {INIT_TIMEOUT_S:g} s")
                )
            return
        in_hand, since_s = self._hand.read()
        limit_s = self._settings.timeout_s
        if in_hand is not None and now_s - since_s > limit_s:
            self._suspect = in_hand   # it may end, and the next begin, while its stack is written
            stopped = " (its process was stopped, as by SIGSTOP)" if self._is_stopped() else ""
            self._kill_with_stack(
                Failure("Timeout", f"run() did not end within {limit_s:g} s{stopped}")
            )

    def _is_stopped(self) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED
        return False

    def _kill_with_stack(self, failure: Failure) -> None:
        self._cause = failure   # before the signal, which ends a process that has tampered with it
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, STACK_SIGNAL)
            os.kill(self._process.pid, signal.SIGCONT)   # a stopped one writes nothing
        self._wait_for_stack()
        self._cause = replace(failure, traceback=self._read_stack())
        self.kill()

    def _wait_for_stack(self) -> None:
        until_s = time.monotonic() + STACK_WAIT_S
        size = 0
        while time.monotonic() < until_s:
            time.sleep(STACK_POLL_S)
            before, size = size, os.fstat(self._stack.fileno()).st_size
            if size and size == before:
                return

    def _read_stack(self) -> str:
        text = os.pread(self._stack.fileno(), STACK_BYTES_MAX, 0).decode(errors="replace")
        return user_stack(text, self._settings.code_dir)

    def _explain(self, status: int) -> Failure:
        if status < 0:
            name = signal_name(-status)
            if -status in OWN_SIGNALS:
                return Failure("Crashed", f"{self._where} crashed with {name}", self._read_stack())
            if -status == signal.SIGKILL and oom_kills() > self._oom_kills:
                return Failure(
                    "OutOfMemory",
                    "the kernel killed the worker process, or all of its machine's memory was "
                    f"taken: it used {self._memory.used_bytes // MB:,} MB when last seen",
                    is_own=False,
                )
            return Failure(
                "Killed", f"the worker process was killed with {name} from outside",
                is_own=False,
            )
        return Failure("Exited", f"{self._where} ended the process with exit code {status}")

    @property
    def _where(self) -> str:
        return "run()" if self._is_ready else "init()"


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
