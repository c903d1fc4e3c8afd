"""Batch jobs as MLflow runs, so that MLflow's own page shows them.

An experiment for each endpoint, a run for each job: what it was asked for, how far it is over
time, where its output is, how it ended. Told beside the jobs, from their rows, by a thread that
nobody waits for: a store that is away delays nothing, and is told what it missed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import or_, select

from inferay.control.context import Context
from inferay.control.mlflow_store import MlflowStore
from inferay.control.tables import Job
from inferay.engine.storage import redacted
from inferay.jobs.states import JobStatus

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger(__name__)

#: Between two values of a metric of one run.
INTERVAL_S = 2.0

#: How long a store that failed is left alone.
PAUSE_S = 30.0

#: Jobs of one turn.
JOBS_MAX = 50

#: Characters of a parameter's value, as every MLflow store takes them.
VALUE_MAX = 500

#: The tag by which the run of a job is known.
JOB_TAG = "inferay.job"

_STATES = {
    JobStatus.COMPLETED: "FINISHED", JobStatus.FAILED: "FAILED", JobStatus.CANCELED: "KILLED",
    JobStatus.NOT_STARTED: "SCHEDULED", JobStatus.QUEUED: "SCHEDULED",
}


class MlflowRuns:
    """Keeps the runs true to the jobs; one thread calls `turn`."""

    def __init__(self, context: Context, store: MlflowStore, *, pause_s: float = PAUSE_S) -> None:
        self._context = context
        self._store = store
        self._pause_s = pause_s
        self._idle_until_s = 0.0
        self._told_s: dict[str, float] = {}
        self._is_away = False

    def turn(self) -> None:
        """Tell MLflow of the jobs that it does not know as they are now; blocks while it does."""
        if time.monotonic() < self._idle_until_s:
            return
        for job in self._due():
            try:
                self._tell(self._store.client(), job)
            except Exception as error:   # of the store, which may be anybody's server
                self._rest(job, error)
                return
            self._is_away = False
            self._mark(job)

    def _due(self) -> list[Job]:
        """Return jobs that go on, and those that ended since MLflow was last told of them."""
        query = select(Job).where(or_(
            Job.tracked_as.is_(None), Job.tracked_as != Job.status, Job.ended_at.is_(None)
        ))
        with self._context.database.read() as session:
            jobs = list(session.scalars(query.order_by(Job.modified_at).limit(JOBS_MAX)))
        recent_s = time.monotonic() - INTERVAL_S
        return [
            job for job in jobs
            if job.spec is not None and (
                job.tracked_as != job.status or self._told_s.get(job.name, recent_s) <= recent_s
            )
        ]

    def _tell(self, client: MlflowClient, job: Job) -> None:
        from mlflow.entities import Metric

        run = self._run(client, job)
        if run is None:
            return   # its user deleted it
        key, progress = run.info.run_id, job.progress or {}
        now_ms = _milliseconds(job.ended_at) or int(time.time() * 1000)
        step = int(progress.get("seconds") or 0)
        client.log_batch(key, [
            Metric(name, float(value), now_ms, step) for name, value in _metrics(progress).items()
        ])
        if job.error is not None:
            client.set_tag(key, "inferay.error", str(job.error["message"])[:VALUE_MAX])
        state = _STATES.get(JobStatus(job.status), "RUNNING")
        if job.ended_at is not None:
            client.set_terminated(key, state, now_ms)
        elif run.info.status != state:
            client.update_run(key, status=state)

    def _run(self, client: MlflowClient, job: Job) -> Run | None:
        """Return the job's run, made if there is none; None if there was one."""
        from mlflow.entities import ViewType

        experiment = self._experiment(client, job.endpoint)
        found = client.search_runs(
            [experiment], f"tags.`{JOB_TAG}` = '{job.name}'", ViewType.ALL, max_results=1
        )
        if not found:
            run = client.create_run(
                experiment, run_name=job.name, start_time=_milliseconds(job.created_at),
                tags=_tags(job),
            )
        elif found[0].info.lifecycle_stage == "deleted":
            return None
        else:
            run = found[0]
        for name, value in _parameters(job).items():   # what is there is the same
            if name not in run.data.params:
                client.log_param(run.info.run_id, name, value)
        return run

    def _experiment(self, client: MlflowClient, name: str) -> str:
        found = client.get_experiment_by_name(name)
        if found is None:
            artifacts = self._store.artifacts
            place = (artifacts / name).as_uri() if artifacts is not None else None
            return str(client.create_experiment(name, artifact_location=place))
        if found.lifecycle_stage == "deleted":   # MLflow keeps its name
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _rest(self, job: Job, error: Exception) -> None:
        if not self._is_away:
            log.warning(
                "MLflow's store %s cannot be told of job %s (%s: %s); it is tried again every "
                "%g s, and no job waits for it", redacted(self._store.uri), job.name,
                type(error).__name__, str(error)[:VALUE_MAX], self._pause_s,
            )
        self._is_away = True
        self._idle_until_s = time.monotonic() + self._pause_s

    def _mark(self, job: Job) -> None:
        """Note what was told: a job that went on meanwhile is told of again."""
        self._told_s[job.name] = time.monotonic()
        if job.ended_at is not None:
            self._told_s.pop(job.name)
        if job.tracked_as != job.status:
            with self._context.database.write() as session:
                row = session.get(Job, job.name)
                if row is not None:
                    row.tracked_as = job.status


def watch(turns: Sequence[Callable[[], None]], stopping: threading.Event) -> None:
    """Take the turns until told to stop."""
    while not stopping.wait(INTERVAL_S):
        for turn in turns:
            try:
                turn()
            except Exception:   # of the database: the next turn tells what this one did not
                log.exception("MLflow cannot be kept in step")


def _tags(job: Job) -> dict[str, str]:
    body = job.request["properties"]
    own = {str(key): str(value)[:VALUE_MAX] for key, value in (body.get("tags") or {}).items()}
    return own | {
        JOB_TAG: job.name, "inferay.endpoint": job.endpoint, "inferay.deployment": job.deployment,
        "inferay.output": redacted(job.output), "mlflow.source.type": "JOB",
        "mlflow.source.name": f"inferay/{job.endpoint}/{job.deployment}",
    }


def _parameters(job: Job) -> dict[str, str]:
    spec: dict[str, Any] = job.spec or {}
    settings = {
        key: value for key, value in (spec.get("settings") or {}).items()
        if key != "environment_variables"   # which may hold secrets
    }
    assets = spec.get("assets") or {}
    parameters = settings | {
        "input": redacted(str(spec.get("input", ""))), "output": redacted(job.output),
        "workers_max": (spec.get("workers") or {}).get("count", ""), "deployment": job.deployment,
    } | {what: name for what, name in assets.items() if what in ("model", "code", "environment")}
    return {key: str(value)[:VALUE_MAX] for key, value in parameters.items() if value != ""}


def _metrics(progress: dict[str, Any]) -> dict[str, float]:
    counts = progress.get("counts") or {}
    values = {
        "items_per_s": progress.get("items_per_s_now"), "percent": progress.get("percent"),
        "mini_batches": progress.get("mini_batches"), "workers": progress.get("workers_ready"),
    } | counts
    return {name: value for name, value in values.items() if value is not None}


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.replace(tzinfo=UTC).timestamp() * 1000)
