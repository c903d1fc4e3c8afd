"""Operations: a mutation as a row with steps, driven on until it has succeeded or failed.

A step is idempotent. After it, the row says so; a crash between any two points is followed by the
same step once more. A step that explains its failure (an `InferayError`) fails the operation at
once; any other error is tried again a few times, for it may be the machine's. A step that has to
wait for something holds no thread: it says `NotYet`, and its operation is driven on next turn.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from inferay.control.context import Context
from inferay.control.tables import Operation
from inferay.engine.batch.store import is_full
from inferay.errors import Conflict, InferayError, JobError

log = logging.getLogger(__name__)

#: Operations under way at once: copies of models are long, and none may hold up the others.
WORKERS = 4

#: Tries of a step that fails without an explanation.
TRIES_MAX = 3

#: Between two tries of a step that waits.
WAIT_S = 0.25

#: A step takes the context and the operation, and returns once its work is durable.
Step = Callable[[Context, Operation], None]

#: Called once with the error when an operation fails, in the transaction that says so.
OnFailure = Callable[[Session, Operation, InferayError], None]


class NotYet(Exception):
    """Raised by a step that waits: it is taken again next turn; the step itself has the limit."""


class Steps:
    """The steps of every kind of operation."""

    def __init__(self) -> None:
        self.steps: dict[str, Sequence[Step]] = {}
        self.on_failure: dict[str, OnFailure] = {}

    def add(self, kind: str, steps: Sequence[Step], on_failure: OnFailure) -> None:
        """Say which steps a kind of operation has."""
        self.steps[kind] = steps
        self.on_failure[kind] = on_failure


def begin(
    session: Session, kind: str, target: str, payload: Mapping[str, Any] | None = None
) -> Operation:
    """Add an operation in the caller's transaction, beside the change that it carries out.

    Raises:
        Conflict: Another operation on the same target is under way.
    """
    running = session.scalar(
        select(Operation).where(Operation.target == target, Operation.status == "Running")
    )
    if running is not None:
        raise Conflict(
            f"an operation on {target} is under way ({running.kind}, id {running.id}); wait for it",
            code="OperationRunning", target=target,
        )
    sequence = (session.scalar(select(func.max(Operation.sequence))) or 0) + 1
    operation = Operation(
        id=str(uuid.uuid4()), sequence=sequence, kind=kind, target=target, status="Running",
        payload=dict(payload or {}),
    )
    session.add(operation)
    return operation


class Runner:
    """Drives operations on; each on a thread of its own, in the order of their steps."""

    def __init__(self, context: Context, steps: Steps) -> None:
        self._context = context
        self._steps = steps
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="operation")
        self._under_way: dict[str, Future[None]] = {}
        self._waiting_since_s: dict[str, float] = {}

    def run_due(self) -> None:
        """Begin what is to be done and is not under way; does not block."""
        for key, done in [(k, f) for k, f in self._under_way.items() if f.done()]:
            del self._under_way[key]
            if (error := done.exception()) is not None:
                log.error("operation %s could not be driven on", key, exc_info=error)
        recent_s = time.monotonic() - WAIT_S
        for key in self.due():
            if key not in self._under_way and self._waiting_since_s.get(key, recent_s) <= recent_s:
                self._under_way[key] = self._pool.submit(self.drive, key)

    def due(self) -> list[str]:
        """Return the ids of operations that are not finished, oldest first."""
        query = select(Operation.id).where(Operation.status == "Running")
        with self._context.database.read() as session:
            return list(session.scalars(query.order_by(Operation.sequence)))

    def drive(self, key: str) -> None:
        """Carry out an operation's remaining steps until one has to wait; blocks."""
        self._waiting_since_s.pop(key, None)
        while (operation := self._running(key)) is not None:
            steps = self._steps.steps[operation.kind]
            if operation.step == len(steps):
                self._finish(key)
                return
            step = steps[operation.step]
            self._context.checkpoint(f"{operation.kind}:{operation.step}:before")
            try:
                step(self._context, operation)
            except NotYet:
                self._waiting_since_s[key] = time.monotonic()
                return
            except InferayError as error:
                self._fail(key, error)
                return
            except Exception as error:
                log.exception("operation %s %s: %s failed", operation.kind, operation.target,
                              getattr(step, "__name__", step))
                if not self._try_again(key, error):
                    return
                continue
            self._context.checkpoint(f"{operation.kind}:{operation.step}:after")
            with self._context.database.write() as session:
                row = session.get_one(Operation, key)
                row.step += 1
                row.tries = 0

    def close(self) -> None:
        """Let steps under way end; what remains is driven on by the next control plane."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _running(self, key: str) -> Operation | None:
        with self._context.database.read() as session:
            operation = session.get(Operation, key)
        return operation if operation is not None and operation.status == "Running" else None

    def _finish(self, key: str) -> None:
        with self._context.database.write() as session:
            session.get_one(Operation, key).status = "Succeeded"
        self._context.wake.set()

    def _fail(self, key: str, error: InferayError) -> None:
        with self._context.database.write() as session:
            operation = session.get_one(Operation, key)
            operation.status = "Failed"
            operation.error = error.as_dict()
            self._steps.on_failure[operation.kind](session, operation, error)

    def _try_again(self, key: str, error: Exception) -> bool:
        with self._context.database.write() as session:
            operation = session.get_one(Operation, key)
            operation.tries += 1
            tries = operation.tries
        if tries < TRIES_MAX:
            return True
        self._fail(key, explained(error, tries))
        return False


def explained(error: Exception, tries: int) -> InferayError:
    """Return what to tell of an error that was still there after so many tries."""
    if is_full(error):
        where = getattr(error, "filename", None) or "the workspace"
        return JobError(
            f"no space is left where the control plane writes ({where}); make space, then try "
            "again", code="StorageFull",
        )
    return InferayError(
        f"{type(error).__name__}: {error} (tried {tries} times; see the control log)",
        code="InternalError",
    )
