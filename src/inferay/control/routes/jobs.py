"""Routes of jobs, and the batch scoring URI that makes them."""

from __future__ import annotations

import contextlib
import json
import os
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from sqlalchemy import select

from inferay.control import jobs as service
from inferay.control.asked import parse_invocation
from inferay.control.context import Context
from inferay.control.endpoints import get_deployment, get_endpoint
from inferay.control.invoke import Invoked, check_remote, invoke
from inferay.control.redrive import redrive
from inferay.control.remote_output import content_of, files_of
from inferay.control.routes.common import (
    PAGE,
    Admin,
    Caller,
    Ctx,
    Json,
    OptionalJson,
    Reader,
    body_of,
    inside,
    settle,
)
from inferay.control.storage import access_of
from inferay.control.tables import Job, Operation
from inferay.control.verification import check_verifiable, verification
from inferay.control.views import job_view
from inferay.engine.batch.output import ERRORS, PARTIAL, SUCCESS
from inferay.engine.batch.publish import failed_lines
from inferay.engine.batch.store import open_store
from inferay.engine.resources import BatchJobBody, RedriveBody
from inferay.engine.storage import is_remote
from inferay.errors import NotFound
from inferay.jobs.folder import JobFolder
from inferay.jobs.states import JobStatus

router = APIRouter()

#: A log is read in pieces of at most so many bytes.
LOG_BYTES_MAX = 1 << 20

#: Failed items that one answer tells of; a job with more of them has `errors.jsonl` for a reader.
ERRORS_MAX = 100_000


@router.post("/endpoints/{endpoint}/jobs", openapi_extra=body_of(BatchJobBody))
def post_job(
    context: Ctx, who: Caller, endpoint: str, body: Json,
    azureml_model_deployment: Annotated[str | None, Header()] = None,
    repeatability_request_id: Annotated[
        str | None, Header(alias="repeatability_request-id", convert_underscores=False)
    ] = None,
) -> Response:
    """Invoke a batch endpoint: Azure's batch scoring URI."""
    who.check_scorer(endpoint)
    asked = parse_invocation(
        endpoint, body, deployment=azureml_model_deployment, request_id=repeatability_request_id
    )
    check_remote(context, who, asked)
    with context.database.write() as session:
        invoked = invoke(context, session, who, asked)
    return _invoked(context, invoked)


def _invoked(context: Context, invoked: Invoked) -> Response:
    """Return a job that was added, or found; waits a little for its start."""
    name = invoked.job.name
    with context.database.read() as session:
        operation = session.scalar(
            select(Operation).where(
                Operation.target == f"jobs/{name}", Operation.status == "Running"
            )
        )
    if operation is not None:
        settle(context, operation)
    with context.database.read() as session:
        view = job_view(service.get_job(session, name), context.url)
    return JSONResponse(
        view | {"notices": invoked.notices}, status_code=201 if invoked.is_new else 200
    )


@router.get("/v1/batchEndpoints/{endpoint}/jobs")
def list_endpoint_jobs(
    context: Ctx, who: Caller, endpoint: str, top: Annotated[int, Query(ge=1, le=PAGE)] = PAGE
) -> dict[str, Any]:
    """Return an endpoint's jobs, newest first."""
    who.check_reader_of(endpoint)
    with context.database.read() as session:
        get_endpoint(session, endpoint)
    return _list(context, top, Job.endpoint == endpoint)


@router.get("/v1/batchEndpoints/{endpoint}/deployments/{deployment}/jobs")
def list_deployment_jobs(
    context: Ctx, who: Caller, endpoint: str, deployment: str,
    top: Annotated[int, Query(ge=1, le=PAGE)] = PAGE,
) -> dict[str, Any]:
    """Return a deployment's jobs, newest first."""
    who.check_reader_of(endpoint)
    with context.database.read() as session:
        get_deployment(session, endpoint, deployment)
    return _list(context, top, Job.endpoint == endpoint, Job.deployment == deployment)


@router.get("/v1/jobs")
def list_jobs(
    context: Ctx, who: Reader, top: Annotated[int, Query(ge=1, le=PAGE)] = PAGE
) -> dict[str, Any]:
    """Return all jobs, newest first."""
    return _list(context, top)


@router.get("/v1/jobs/{name}")
def get_job(context: Ctx, who: Caller, name: str) -> dict[str, Any]:
    """Return a job: its state, how far it is, and why it failed."""
    return job_view(_job(context, who, name), context.url)


@router.post("/v1/jobs/{name}/cancel")
def cancel_job(context: Ctx, who: Admin, name: str) -> dict[str, Any]:
    """Ask for the end of a job; it has ended when its status is Canceled."""
    with context.database.write() as session:
        view = job_view(service.cancel_job(context, session, name), context.url)
    context.wake.set()
    return view


@router.post("/v1/jobs/{name}/resume")
def resume_job(context: Ctx, who: Admin, name: str) -> dict[str, Any]:
    """Let a job that failed or was canceled go on from its journal."""
    with context.database.write() as session:
        view = job_view(service.resume_job(context, session, name), context.url)
    context.wake.set()
    return view


@router.post(
    "/v1/jobs/{name}/redrive", openapi_extra=body_of(RedriveBody, is_required=False)
)
def redrive_job(context: Ctx, who: Admin, name: str, body: OptionalJson) -> Response:
    """Score the failed items of a completed job anew, in a new job."""
    return _invoked(context, redrive(context, who, name, body))


@router.get("/v1/jobs/{name}/verify")
def verify_job(context: Ctx, who: Caller, name: str) -> StreamingResponse:
    """Derive every hash that a completed job recorded anew: a line of JSON per check."""
    job = _job(context, who, name)
    check_verifiable(job)
    return StreamingResponse(verification(context, job), media_type="application/x-ndjson")


@router.get("/v1/jobs/{name}/errors")
def list_errors(
    context: Ctx, who: Caller, name: str, top: Annotated[int, Query(ge=1, le=ERRORS_MAX)] = PAGE
) -> StreamingResponse:
    """Return the items of a job that have failed so far: a line of JSON each, in input order."""
    _job(context, who, name)
    lines = failed_lines(JobFolder(context.workspace.job_folder(name)).work)
    return StreamingResponse(islice(lines, top), media_type="application/x-ndjson")


@router.get("/v1/jobs/{name}/logs")
def list_logs(context: Ctx, who: Caller, name: str) -> dict[str, Any]:
    """Return the names and sizes of a job's logs."""
    _job(context, who, name)
    return {"value": _files(context.workspace.job_folder(name) / "logs")}


@router.get("/v1/jobs/{name}/logs/{path:path}")
def get_log(
    context: Ctx, who: Caller, name: str, path: str,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """Return a log from an offset on, 1 MiB at most; what users print is text, never a page."""
    _job(context, who, name)
    file = inside(context.workspace.job_folder(name) / "logs", path)
    with open(file, "rb") as log:
        log.seek(offset)
        content = log.read(LOG_BYTES_MAX)
    return Response(content, media_type="text/plain; charset=utf-8")


@router.get("/v1/jobs/{name}/outputs/score/files")
def list_output(context: Ctx, who: Caller, name: str) -> dict[str, Any]:
    """Return the names and sizes of the files in a job's output."""
    job = _job(context, who, name)
    published = _published(context, job)
    if is_remote(job.output):
        return {"value": files_of(context, job, published)}
    return {"value": [file for file in _files(Path(job.output)) if file["name"] in published]}


@router.get("/v1/jobs/{name}/outputs/score/files/{path:path}")
def get_output(context: Ctx, who: Caller, name: str, path: str) -> Response:
    """Return a file of a job's output."""
    job = _job(context, who, name)
    if path not in _published(context, job):
        raise NotFound(f"there is no file '{path}'", target=path)
    if is_remote(job.output):
        return StreamingResponse(
            content_of(context, job, path), media_type="application/octet-stream"
        )
    file = inside(Path(job.output), path)
    return FileResponse(file, media_type="application/octet-stream")


def _job(context: Context, who: Caller, name: str) -> Job:
    with context.database.read() as session:
        job = service.get_job(session, name)
    who.check_reader_of(job.endpoint)
    return job


def _list(context: Context, top: int, *conditions: Any) -> dict[str, Any]:
    query = select(Job).where(*conditions).order_by(Job.created_at.desc(), Job.name).limit(top)
    with context.database.read() as session:
        rows = session.scalars(query)
        return {"value": [job_view(row, context.url, is_brief=True) for row in rows]}


def _published(context: Context, job: Job) -> set[str]:
    """Return the names in its output that are the job's own: the folder may hold more."""
    rows = (job.spec or {}).get("settings", {}).get("output_file_name", "")
    if job.status != JobStatus.COMPLETED:
        return {rows + PARTIAL}
    try:
        output = open_store(job.output, access_of(context, job))
        success = json.loads(output.read(SUCCESS))
        files = [file["name"] for file in success["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        files = [rows]
    return {SUCCESS, ERRORS, *files}


def _files(folder: Path) -> list[dict[str, Any]]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            name = os.path.relpath(os.path.join(parent, file), folder)
            with contextlib.suppress(NotFound, FileNotFoundError):   # a link out, or gone since
                size = inside(folder, name).stat().st_size
                if not file.startswith("."):
                    found.append({"name": name, "sizeBytes": size})
    return found
