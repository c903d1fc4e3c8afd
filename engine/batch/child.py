"""The worker process: `python -m inferay.engine.batch.child FD`, with a socket to its parent.

In an environment of its own it builds that first, and becomes its Python, which is given the
settings in a file: `python -m inferay.engine.batch.child FD SETTINGS_FD`.

It holds the user's code and nothing of Ray. Messages are lines of JSON: settings first, then
leases; answers are `ready`, `start_failed` and receipts. It ends when its parent closes the socket,
or, on Linux, with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections import deque
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import IO, Any

from inferay.engine.batch.hand import Hand
from inferay.engine.batch.messages import Failure, Lease, Receipt, WorkerSettings
from inferay.engine.batch.scorer import Scorer
from inferay.engine.batch.scratch import Scratch
from inferay.engine.batch.staging import Staging
from inferay.engine.batch.store import LocalStore, Store, is_full, open_store
from inferay.engine.batch.units import Range
from inferay.engine.scoring.aliases import install_aliases
from inferay.engine.scoring.environments import ensure
from inferay.engine.scoring.integrity import check_content
from inferay.engine.scoring.script import Scoring, ScoringScript
from inferay.engine.scoring.tracebacks import describe_exception, user_traceback
from inferay.engine.storage import is_remote
from inferay.errors import InferayError, UserCodeError

#: The parent asks for the hung stack with this signal before it kills.
STACK_SIGNAL = signal.SIGUSR2

_PR_SET_PDEATHSIG = 1

_RECEIVE_BYTES = 1 << 16

#: How long a thread of a process that fetches may hold the GIL while another wants it: with
#: Python's 5 ms, `run()` would wait as long after each call that lets go of it, for the fetches.
FETCHING_SWITCH_S = 0.0005


def main(descriptor: int, told: int | None = None) -> None:
    """Serve one parent over the socket until it closes.

    Args:
        descriptor: Of the socket.
        told: Of a file with what the parent has said so far; None: nothing.
    """
    _die_with_parent()
    _die_first()
    channel = socket.socket(fileno=descriptor)
    out = channel.makefile("w", encoding="utf-8")
    if told is None:
        leases = _Leases(channel)
    else:
        with open(told, "rb") as file:
            leases = _Leases(channel, file.read())
    first = leases.settings()
    if told is None and not _enter_environment(channel, out, first, leases):
        return
    channel.set_inheritable(False)
    stack_file = open(first["stack"], "wb", buffering=0)  # noqa: SIM115 (open for life)
    faulthandler.enable(stack_file)
    faulthandler.register(STACK_SIGNAL, file=stack_file, all_threads=True)
    settings = WorkerSettings.from_dict(first["settings"])
    is_far = is_remote(settings.root) or is_remote(settings.store)
    if is_far:
        sys.setswitchinterval(FETCHING_SWITCH_S)
    scratch = Scratch(Path(first["scratch"])) if is_far else None
    hand = Hand(Path(first["hand"]))
    try:
        scoring, scorer = _start(settings, hand, scratch)
    except BaseException as error:   # whatever it is, the parent has to hear of it
        _send(out, {"k": "start_failed", "failure": _start_failure(error, settings).__dict__})
        return
    _send(out, {"k": "ready"})
    sender = _Sender(channel, out)
    while lease := leases.next():
        try:
            receipt, durable = scorer.score(lease, leases.waiting)
        except Exception as error:   # not the user's: the store or the manifest failed
            sender.break_off(error)
            return
        durable.add_done_callback(partial(sender.send_receipt, receipt))
    scoring.shutdown()
    scorer.close()
    if scratch is not None:
        scratch.close()


class _Leases:
    """What the parent sends: lines of JSON, settings first, then leases.

    Not read by a thread: while one waits in it, a connection that user code closes stays open.
    """

    def __init__(self, channel: socket.socket, heard: bytes = b"") -> None:
        self._channel = channel
        self._partial = b""
        self._lines: deque[bytes] = deque()
        self._waiting: deque[Lease] = deque()
        self._take(heard)

    def settings(self) -> dict[str, Any]:
        """Return the first message; blocks.

        Raises:
            SystemExit: The parent is gone.
        """
        while not self._lines:
            more = self._channel.recv(_RECEIVE_BYTES)
            if not more:
                raise SystemExit(1)
            self._take(more)
        found: dict[str, Any] = json.loads(self._lines.popleft())
        return found

    @property
    def unread(self) -> bytes:
        """What was heard and not returned yet."""
        return b"".join(line + b"\n" for line in self._lines) + self._partial

    def next(self) -> Lease | None:
        """Return the next lease, or None when the parent has closed the connection; blocks."""
        while not (self._waiting or self._lines):
            more = self._channel.recv(_RECEIVE_BYTES)
            if not more:
                return None
            self._take(more)
        self._parse()
        return self._waiting.popleft()

    def waiting(self) -> tuple[Lease, ...]:
        """Return the leases that come after the one in hand, as far as they are here."""
        with contextlib.suppress(BlockingIOError):
            while more := self._channel.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT):
                self._take(more)
        self._parse()
        return tuple(self._waiting)

    def _take(self, more: bytes) -> None:
        *lines, self._partial = (self._partial + more).split(b"\n")
        self._lines.extend(lines)

    def _parse(self) -> None:
        while self._lines:
            message = json.loads(self._lines.popleft())
            lease = Lease(**message | {"range": Range.from_json(message["range"])})
            self._waiting.append(lease)


class _Sender:
    """Sends receipts, from the thread that made their rows durable, in the order of the leases."""

    def __init__(self, channel: socket.socket, out: IO[str]) -> None:
        self._channel = channel
        self._out = out
        self._lock = threading.Lock()
        self._is_broken = False

    def send_receipt(self, receipt: Receipt, durable: Future[None]) -> None:
        """Send the receipt, or why its rows are not durable."""
        error = durable.exception()
        if isinstance(error, Exception):
            self.break_off(error)
        elif not self._is_broken:
            with self._lock:
                _send(self._out, {"k": "receipt", "receipt": receipt.to_json()})

    def break_off(self, error: Exception) -> None:
        """Say that this worker cannot go on, and end the connection; only the first one counts."""
        with self._lock:
            if not self._is_broken:
                self._is_broken = True
                _send(self._out, {"k": "broken", "failure": _store_failure(error).__dict__})
                self._channel.shutdown(socket.SHUT_RDWR)


def _enter_environment(
    channel: socket.socket, out: IO[str], first: dict[str, Any], leases: _Leases
) -> bool:
    """Become the Python of the environment, if it is not this one; say False if there is none."""
    settings = WorkerSettings.from_dict(first["settings"])
    if settings.environment is None:
        return True
    try:
        python = ensure(settings.environment)
    except InferayError as error:
        failure = _start_failure(error, settings)
        _send(out, {"k": "start_failed", "failure": failure.__dict__})
        return False
    if str(python) == sys.executable:
        return True
    with tempfile.TemporaryFile() as told:
        told.write(json.dumps(first).encode() + b"\n" + leases.unread)
        told.seek(0)   # writes what is buffered, too
        for descriptor in (channel.fileno(), told.fileno()):
            os.set_inheritable(descriptor, True)
        os.execv(python, [
            str(python), "-u", "-P", "-m", "inferay.engine.batch.child", str(channel.fileno()),
            str(told.fileno()),
        ])


def _start(
    settings: WorkerSettings, hand: Hand, scratch: Scratch | None
) -> tuple[Scoring, Scorer]:
    logging.basicConfig(
        level=settings.logging_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    install_aliases()
    store = open_store(settings.store, settings.access)
    name = settings.segment.removeprefix("segments/")
    staging = Staging(_staging_folder(store, name, scratch), store, f"files/{name}")
    os.environ["AZUREML_BI_OUTPUT_PATH"] = str(staging.folder)
    check_content(settings.model, settings.model_hash)
    scoring = _load(settings)
    scoring.init()
    return scoring, Scorer(
        settings, scoring.run, staging, hand, store, scratch.make("input") if scratch else None,
        scoring.column_types,
    )


def _load(settings: WorkerSettings) -> Scoring:
    """Return what scores: the user's script, or the flavour of a model that needs none."""
    if settings.flavor == "mlflow":
        from inferay.engine.scoring.mlflow_batch import MlflowBatch

        return MlflowBatch(Path(settings.model))
    if settings.flavor == "triton":
        from inferay.engine.scoring.triton_batch import TritonBatch

        return TritonBatch(Path(settings.model))
    return ScoringScript.load(
        Path(settings.code_dir), settings.scoring_script, packages=settings.packages
    )


def _staging_folder(store: Store, name: str, scratch: Scratch | None) -> Path:
    """Return where the script may write files: beside where they are kept, if that is a disk."""
    if isinstance(store, LocalStore):
        return store.path(f"staging/{name}")
    assert scratch is not None
    return scratch.folder / "staging"   # which `Staging` makes


def _start_failure(error: BaseException, settings: WorkerSettings) -> Failure:
    if isinstance(error, UserCodeError):
        code = "OutOfMemory" if isinstance(error.__cause__, MemoryError) else error.code
        return Failure(code, error.message, error.details or "")
    if isinstance(error, InferayError):
        return _store_failure(error)
    return Failure(
        "StartFailed", describe_exception(error),
        user_traceback(error, Path(settings.code_dir or settings.model)), is_own=False,
    )


def _store_failure(error: Exception) -> Failure:
    if isinstance(error, InferayError):
        return Failure(error.code, error.message, is_own=False)
    if is_full(error):
        said = "no space is left where the job writes; make space, then resume the job"
        return Failure("StorageFull", said, is_own=False)
    return Failure("WorkerFailed", describe_exception(error), is_own=False)


def _send(out: IO[str], message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def _die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies; elsewhere the closed socket ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_first() -> None:
    """Ask Linux to kill this process, not the driver or Ray, when the machine's memory is taken."""
    if sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
