"""Verification of a job for a caller who waits: on a thread of its own, a line per check.

It may read terabytes: so it holds no transaction, few run at once, and a caller that goes away
ends it. Between checks the caller hears that it goes on.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from inferay.control.assets import find_version
from inferay.control.context import Context
from inferay.control.storage import access_to
from inferay.control.tables import Job
from inferay.engine.batch.listing import list_input
from inferay.engine.batch.spec import JobSpec, hash_of
from inferay.engine.batch.store import open_store
from inferay.engine.batch.units import Unit
from inferay.engine.batch.verify import Check, Stopped, verify
from inferay.engine.resources import parse_reference
from inferay.errors import Conflict, InferayError, Unavailable
from inferay.jobs.states import JobStatus

log = logging.getLogger(__name__)

#: Verifications at once: each reads as fast as the disk, which jobs want too.
RUNNING_MAX = 2

#: How long a caller waits for its turn.
TURN_S = 60.0

#: A caller hears of us so often, while a check goes on: proxies and clients give up the silent.
HEARTBEAT_S = 1.0

#: Checks that wait for a slow caller.
_WAITING_MAX = 100

_turns = threading.BoundedSemaphore(RUNNING_MAX)
_KINDS = {"code": "codes", "model": "models", "environment": "environments"}


def check_verifiable(job: Job) -> None:
    """Check that there is something to verify.

    Raises:
        Conflict: The job has not completed.
    """
    if job.status != JobStatus.COMPLETED:
        raise Conflict(
            f"job {job.name} is {job.status}; only a completed job can be verified",
            target=job.name,
        )


def verification(context: Context, job: Job) -> Iterator[bytes]:
    """Yield a line of JSON per check, empty lines between them, and a line with an error if any."""
    until_s = time.monotonic() + TURN_S
    while not _turns.acquire(timeout=HEARTBEAT_S):
        if time.monotonic() > until_s:
            busy = Unavailable(f"{RUNNING_MAX} verifications are under way; try again later")
            yield _line({"error": busy.as_dict()})
            return
        yield b"\n"
    worker = _Worker(context, JobSpec.from_dict(job.spec or {}))
    try:
        worker.start()
        yield from worker.lines()
    finally:
        worker.is_stopped.set()


class _Worker(threading.Thread):
    def __init__(self, context: Context, spec: JobSpec) -> None:
        super().__init__(name=f"verify-{spec.name}", daemon=True)
        self.is_stopped = threading.Event()
        self._context = context
        self._spec = spec
        self._lines: queue.Queue[bytes | None] = queue.Queue(_WAITING_MAX)

    def lines(self) -> Iterator[bytes]:
        while True:
            try:
                line = self._lines.get(timeout=HEARTBEAT_S)
            except queue.Empty:
                line = b"\n"
            if line is None:
                return
            yield line

    def run(self) -> None:
        try:
            for check in self._checks():
                self._put(_line(asdict(check)))
        except Stopped:
            pass
        except Exception as error:   # the caller is told; nobody else waits for this thread
            if not isinstance(error, InferayError):
                log.exception("job %s cannot be verified", self._spec.name)
                error = InferayError(f"the job cannot be verified: {error}")
            self._put(_line({"error": error.as_dict()}))
        finally:
            _turns.release()
            self._put(None)

    def _put(self, line: bytes | None) -> None:
        while not self.is_stopped.is_set():
            try:
                self._lines.put(line, timeout=HEARTBEAT_S)
                return
            except queue.Full:
                continue

    def _checks(self) -> Iterator[Check]:
        spec = self._spec
        with self._context.database.read() as session:
            access = access_to(self._context, session, [spec.input, spec.output])

        def listed() -> Iterable[Unit]:
            return list_input(spec.input, spec.input_type, access=access)[1]

        return verify(
            spec, open_store(spec.work, access), open_store(spec.output, access),
            registered=self._registered(), listed=listed, is_stopped=self.is_stopped.is_set,
        )

    def _registered(self) -> dict[str, str | None]:
        """Return the hashes of the job's assets as they are registered now."""
        found: dict[str, str | None] = {}
        with self._context.database.read() as session:
            for what, reference in self._spec.assets.items():
                wanted = parse_reference(reference)
                row = find_version(session, _KINDS[what], wanted.name, wanted.version or "")
                if row is None:
                    found[what] = None
                elif what == "environment":
                    found[what] = hash_of(row.properties)
                else:
                    found[what] = row.content_hash
        return found


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value).encode() + b"\n"
