"""Jobs after their invocation: started, watched, resumed, canceled.

The database says what shall be, the job's folder what was done, Ray who is alive. `Watcher.look`
brings the three together; it may run at any time, after any crash, any number of times.
"""

from __future__ import annotations

import logging
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from inferay.control.context import Context
from inferay.control.operations import TRIES_MAX, Steps, begin, explained
from inferay.control.storage import access_of, access_to, write_access
from inferay.control.tables import Job, Operation, now
from inferay.engine.batch.listing import Listing, list_input
from inferay.engine.batch.output import is_published
from inferay.engine.batch.publish import publish_partial
from inferay.engine.batch.spec import JobSpec
from inferay.engine.batch.store import open_store
from inferay.engine.storage import Access
from inferay.errors import Conflict, InferayError, JobError, NotFound, Unavailable, nearest
from inferay.jobs.folder import JobFolder
from inferay.jobs.ray_jobs import RayJobs, submission_id
from inferay.jobs.states import JobStatus, Sighting, judge

log = logging.getLogger(__name__)

#: Drivers that may die in a row without committing anything, before the job fails.
RESUMES_WITHOUT_PROGRESS_MAX = 5

#: How often Ray is asked who is alive.
RAY_LOOK_S = 1.0

#: A driver that was asked to cancel ends by itself within a second or two; then Ray ends it.
CANCEL_STOP_S = 4.0

#: A submission that Ray does not list yet is not missing.
SUBMITTED_GRACE_S = 10.0


def get_job(session: Session, name: str) -> Job:
    """Return a job.

    Raises:
        NotFound: There is none.
    """
    row = session.get(Job, name)
    if row is None:
        names = session.scalars(select(Job.name).limit(1000))
        raise NotFound(f"there is no job '{name}'{nearest(name, names)}", target=name)
    return row


def cancel_job(context: Context, session: Session, name: str) -> Job:
    """Ask for the end of a job, in the caller's transaction; idempotent.

    Raises:
        NotFound: There is none.
        Conflict: It has ended in another way.
    """
    job = get_job(session, name)
    if job.ended_at is not None:
        if job.status == JobStatus.CANCELED:
            return job
        raise Conflict(f"job {name} has ended already: {job.status}", code="JobEnded", target=name)
    job.is_cancel_wanted = True
    job.status = JobStatus.CANCEL_REQUESTED
    return job


def resume_job(context: Context, session: Session, name: str) -> Job:
    """Let a job that failed or was canceled go on from its journal, in the caller's transaction.

    Raises:
        NotFound: There is none.
        Conflict: It is running or completed, or another job writes to its output.
    """
    job = get_job(session, name)
    if job.ended_at is None or job.status == JobStatus.COMPLETED:
        raise Conflict(f"job {name} is {job.status}; only a job that failed or was canceled can be "
                       "resumed", target=name)
    live = session.scalar(select(Job).where(Job.output == job.output, Job.ended_at.is_(None)))
    if live is not None:
        raise Conflict(f"job {live.name} is writing to {job.output}", target=name)
    job.is_cancel_wanted = False
    job.ended_at, job.error = None, None
    job.status = JobStatus.NOT_STARTED
    job.resumes_without_progress = 0
    begin(session, "job.resume", f"jobs/{name}", {"name": name})
    return job


def add_steps(steps: Steps) -> None:
    """Say how a job is started and resumed."""
    steps.add("job.start", [_write_spec, _check_input, _queue], _on_failure)
    steps.add("job.resume", [_write_missing_spec, _clear_cancel, _queue], _on_failure)


def _write_spec(context: Context, operation: Operation) -> None:
    with context.database.read() as session:
        job = session.get_one(Job, operation.payload["name"])
    JobFolder(context.workspace.job_folder(job.name)).write_spec(JobSpec.from_dict(job.spec or {}))


def _write_missing_spec(context: Context, operation: Operation) -> None:
    """Write the spec that the job's start could not; one that is there stays as it was written."""
    if not JobFolder(context.workspace.job_folder(operation.payload["name"])).spec_path.exists():
        _write_spec(context, operation)


def _check_input(context: Context, operation: Operation) -> None:
    with context.database.read() as session:
        job = session.get_one(Job, operation.payload["name"])
    spec = JobSpec.from_dict(job.spec or {})
    if spec.input_type == "uri_folder":
        seen = Listing()
        with context.database.read() as session:
            access = access_to(context, session, [spec.input])
        if next(list_input(spec.input, spec.input_type, seen, access=access)[1], None) is None:
            hint = f"; {seen.links_skipped} links lead out of it" if seen.links_skipped else ""
            raise JobError(
                f"the input {spec.input} has no files{hint}", code="NoInput", target=spec.input
            )


def _clear_cancel(context: Context, operation: Operation) -> None:
    JobFolder(context.workspace.job_folder(operation.payload["name"])).withdraw_cancel()


def _queue(context: Context, operation: Operation) -> None:
    """Give the job to its next driver; the watcher submits it."""
    folder = JobFolder(context.workspace.job_folder(operation.payload["name"]))
    with context.database.write() as session:
        job = session.get_one(Job, operation.payload["name"])
        if job.status == JobStatus.NOT_STARTED:
            job.epoch = max(job.epoch, folder.last_epoch()) + 1
            job.status = JobStatus.QUEUED


def _on_failure(session: Session, operation: Operation, error: InferayError) -> None:
    job = session.get_one(Job, operation.payload["name"])
    job.status, job.error, job.ended_at = JobStatus.FAILED, error.as_dict(), now()


class Watcher:
    """Looks after live jobs; one thread calls `look`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._drivers: dict[str, str] | None = None
        self._looked_s = 0.0
        self._submitted_s: dict[str, float] = {}
        self._cancel_s: dict[str, float] = {}
        self._tries: dict[str, int] = {}   # submissions that failed without an explanation
        self._done: dict[str, int] = {}   # mini-batches, at the last death of a job's driver

    def look(self) -> None:
        """Bring every live job a step on; does not wait for any."""
        with self._context.database.read() as session:
            jobs = list(session.scalars(select(Job).where(Job.ended_at.is_(None))))
        if not jobs:
            return
        self._ask_ray()
        for job in jobs:
            try:
                self._look_at(job)
            except Unavailable as error:
                self._say(job, waiting_for=error.message)
            except Exception:   # one job's trouble must not stop the others
                log.exception("job %s cannot be looked after", job.name)

    # -- inside

    def _look_at(self, job: Job) -> None:
        folder = JobFolder(self._context.workspace.job_folder(job.name))
        if job.is_cancel_wanted:
            folder.ask_to_cancel()
        elif job.status == JobStatus.NOT_STARTED:
            return   # its operation gives it to a driver; what an older epoch left is history
        if job.epoch == 0:
            if job.is_cancel_wanted:
                self._end(job, JobStatus.CANCELED, None, folder)
            return
        sighting = Sighting(
            folder.result(job.epoch), folder.progress(job.epoch), self._driver(job, folder),
            job.is_cancel_wanted,
        )
        if sighting.driver == "missing":
            self._submit_or_end(job, folder)
            return
        verdict = judge(sighting)
        if verdict.status.is_final:
            self._end(job, verdict.status, verdict.error, folder)
        elif verdict.is_resume_due:
            self._resume(job, folder)
        else:
            self._insist_on_cancel(job)
            self._say(job, verdict.status, sighting.progress)

    def _driver(self, job: Job, folder: JobFolder) -> str:
        """Return `alive`, `gone`, `missing` (never submitted to this Ray), or `unknown`."""
        if self._drivers is None:
            return "unknown"
        key = submission_id(job.name, job.epoch)
        found = self._drivers.get(key)
        if found is not None:
            return found
        if folder.last_epoch() >= job.epoch:   # it ran on a Ray head that is gone
            return "gone"
        if time.monotonic() - self._submitted_s.get(key, -SUBMITTED_GRACE_S) < SUBMITTED_GRACE_S:
            return "alive"
        return "gone" if job.is_cancel_wanted else "missing"

    def _ask_ray(self) -> None:
        if time.monotonic() - self._looked_s < RAY_LOOK_S:
            return
        try:
            self._drivers = self._context.ray().drivers()
        except Unavailable as error:
            if self._drivers is not None or not self._looked_s:
                log.warning("%s", error.message)
            self._drivers = None
        self._looked_s = time.monotonic()

    def _submit_or_end(self, job: Job, folder: JobFolder) -> None:
        """Submit the job's driver; what time does not heal ends the job, which can be resumed.

        Raises:
            Unavailable: Ray does not answer, or refuses.
        """
        try:
            self._submit(job, folder)
        except Unavailable:
            raise
        except InferayError as error:
            self._end(job, JobStatus.FAILED, error.as_dict(), folder)
        except Exception as error:
            tries = self._tries[job.name] = self._tries.get(job.name, 0) + 1
            log.exception("job %s: its driver cannot be submitted", job.name)
            if tries >= TRIES_MAX:
                self._end(job, JobStatus.FAILED, explained(error, tries).as_dict(), folder)
        else:
            self._tries.pop(job.name, None)

    def _submit(self, job: Job, folder: JobFolder) -> None:
        key = submission_id(job.name, job.epoch)
        self._context.checkpoint("job.submit:before")
        access = self._write_access(job)
        submit(
            self._context.ray(), key, folder.spec_path, job.epoch, self._environment(), access
        )
        self._context.checkpoint("job.submit:after")
        self._submitted_s[key] = time.monotonic()
        if self._drivers is not None:   # what Ray said before does not list it
            self._drivers[key] = "alive"

    def _write_access(self, job: Job) -> Path | None:
        """Leave the credentials that the job's driver needs, as they are now."""
        return write_access(
            self._context.workspace, job.name, access_of(self._context, job)
        )

    def _environment(self) -> dict[str, str]:
        return {"INFERAY_HOME": str(self._context.workspace.home)}

    def _resume(self, job: Job, folder: JobFolder) -> None:
        """The driver died without a result: give the job to the next one, unless that is vain."""
        done = ((folder.last_progress() or {}).get("counts") or {}).get("mini_batches_done", 0)
        before = self._done.get(job.name, 0)
        self._done[job.name] = max(done, before)
        vain = 0 if done > before else job.resumes_without_progress + 1
        if vain > RESUMES_WITHOUT_PROGRESS_MAX:
            message = self._ray_message(job)
            error = JobError(
                f"the job's driver died {vain} times in a row without progress: {message}; see its "
                "logs, then `inferay job resume`",
                code="DriverDied",
            )
            self._end(job, JobStatus.FAILED, error.as_dict(), folder)
            return
        log.warning("job %s: the driver of epoch %s died; it is resumed", job.name, job.epoch)
        with self._context.database.write() as session:
            row = session.get_one(Job, job.name)
            row.epoch = max(job.epoch, folder.last_epoch()) + 1
            row.resumes_without_progress = vain
            row.status = JobStatus.QUEUED
            row.progress = folder.last_progress()
        self._context.wake.set()

    def _ray_message(self, job: Job) -> str:
        try:
            return self._context.ray().message(submission_id(job.name, job.epoch))
        except Unavailable as error:
            return error.message

    def _insist_on_cancel(self, job: Job) -> None:
        if not job.is_cancel_wanted:
            return
        began_s = self._cancel_s.setdefault(job.name, time.monotonic())
        if time.monotonic() - began_s > CANCEL_STOP_S:
            self._context.ray().stop(submission_id(job.name, job.epoch))

    def _end(
        self, job: Job, status: JobStatus, error: dict[str, Any] | None, folder: JobFolder
    ) -> None:
        if status is not JobStatus.COMPLETED and folder.result(job.epoch) is None and job.epoch:
            try:
                access = access_of(self._context, job)
                if is_published(open_store(job.output, access), job.name):
                    status, error = JobStatus.COMPLETED, None   # it died after the last step
                else:
                    publish_partial(folder.read_spec(), access)   # no driver lived to do it
            except (OSError, ValueError, InferayError) as failure:   # it must end all the same
                log.warning("job %s: its rows so far cannot be kept: %s", job.name, failure)
        with self._context.database.write() as session:
            row = session.get_one(Job, job.name)
            row.status, row.error, row.ended_at = status, error, now()
            row.progress = folder.last_progress() or row.progress
            row.waiting_for = None
        write_access(self._context.workspace, job.name, Access())
        self._cancel_s.pop(job.name, None)
        self._done.pop(job.name, None)
        self._tries.pop(job.name, None)
        self._submitted_s.pop(submission_id(job.name, job.epoch), None)

    def _say(
        self, job: Job, status: JobStatus | None = None, progress: dict[str, Any] | None = None,
        waiting_for: str | None = None,
    ) -> None:
        waiting_for = waiting_for or (progress or {}).get("waiting_for")
        is_same = progress == job.progress or progress is None
        if (status in (None, job.status)) and is_same and waiting_for == job.waiting_for:
            return
        with self._context.database.write() as session:
            row = session.get_one(Job, job.name)
            row.status = row.status if status is None or row.is_cancel_wanted else status
            row.progress = progress or row.progress
            row.waiting_for = waiting_for


def submit(
    ray: RayJobs, key: str, spec: Path, epoch: int, env: dict[str, str], access: Path | None = None
) -> None:
    """Submit the driver of one epoch; a repeat does nothing.

    Raises:
        Unavailable: Ray does not answer, or refuses.
    """
    command = [sys.executable, "-P", "-m", "inferay.jobs", "run", str(spec), "--epoch", str(epoch)]
    command += ["--access", str(access)] if access is not None else []
    ray.submit(key, shlex.join(command), env)
