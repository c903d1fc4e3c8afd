"""An invocation of a batch endpoint: what it asks for, resolved into one frozen job spec."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from inferay.control import assets, storage
from inferay.control.asked import Asked
from inferay.control.context import Context
from inferay.control.endpoints import get_deployment, get_endpoint
from inferay.control.environments import surroundings
from inferay.control.notices import check_ready, workers_of
from inferay.control.operations import begin
from inferay.control.scored import scored_by
from inferay.control.tables import Deployment, Endpoint, Job
from inferay.control.tokens import Principal
from inferay.engine.batch.formats import check_format
from inferay.engine.batch.listing import check_outside
from inferay.engine.batch.output import check_free
from inferay.engine.batch.spec import JobSettings, JobSpec, Redrive, hash_of
from inferay.engine.batch.split.declared import resolve_split
from inferay.engine.batch.store import LocalStore, open_store
from inferay.engine.resources import (
    BatchDeployment,
    BatchJobProperties,
    Resources,
    RetrySettings,
    from_rest,
    is_datastore_path,
    is_resource_id,
)
from inferay.engine.storage import Access, is_bucket, is_remote, redacted
from inferay.engine.storage.download import check_kind
from inferay.errors import Conflict, InvalidInput, NotAuthorized
from inferay.jobs.folder import JobFolder
from inferay.jobs.states import JobStatus

_FOLDERS = ("UriFolder", "MLTable")


@dataclass(frozen=True)
class Invoked:
    """A job that an invocation made, or found.

    Attributes:
        job: The row.
        is_new: False for a repeat with the same name and content.
        notices: What the caller should know.
    """

    job: Job
    is_new: bool
    notices: list[str]


def invoke(context: Context, session: Session, who: Principal, asked: Asked) -> Invoked:
    """Add a job, in the caller's transaction, or find the one that the same was asked for before.

    Raises:
        InvalidInput: A path in it is wrong, or there is no default deployment.
        NotAuthorized: The caller may not name that path, or set that.
        NotFound: The endpoint, deployment, or an asset does not exist.
        Conflict: The output exists or is taken, or the job's name is, with other content.
    """
    properties = asked.properties
    row = get_endpoint(session, asked.endpoint)
    if properties.environment_variables and who.role != "admin":
        raise NotAuthorized(   # PYTHONPATH alone would run their code
            f"the token '{who.name}' of role {who.role} may not set environment variables",
            code="Forbidden", target="/properties/environmentVariables",
        )
    known = asked.find(session)   # whatever the default is by now
    if known is not None:
        return Invoked(known, False, [])
    deployment = _deployment_of(asked, row)
    source = _input(context, session, who, properties)
    return add_job(context, session, who, asked, deployment, source)


def _deployment_of(asked: Asked, endpoint: Endpoint) -> str:
    wanted = asked.deployment or (endpoint.properties.get("defaults") or {}).get("deploymentName")
    if wanted is None:
        raise InvalidInput(
            f"endpoint '{endpoint.name}' has no default deployment; name one with "
            "--deployment-name, or set it: inferay batch-endpoint update "
            f"-n {endpoint.name} --defaults deployment_name=NAME",
            target="deploymentName",
        )
    return str(wanted)


def add_job(
    context: Context, session: Session, who: Principal, asked: Asked, wanted: str,
    source: tuple[str, str], redrive: Redrive | None = None,
) -> Invoked:
    """Add a job, whose name is free, in the caller's transaction.

    Args:
        context: The control plane's.
        session: The caller's transaction.
        who: Whose job it is.
        asked: What is asked for.
        wanted: The deployment.
        source: Path or URI of the input, and `uri_file` or `uri_folder`.
        redrive: Whose failed items the job scores.

    Raises:
        As `invoke`.
    """
    endpoint, properties, name = asked.endpoint, asked.properties, asked.name or str(uuid.uuid4())
    chosen = get_deployment(session, endpoint, wanted)
    check_ready(chosen.state, f"deployment '{wanted}' of endpoint '{endpoint}'")
    entity = _effective(
        from_rest(BatchDeployment, wanted, {"properties": chosen.properties, "tags": chosen.tags},
                  endpoint_name=endpoint),
        properties,
    )
    output = _output(context, session, who, properties, name)
    check_outside(output, source[0])
    spec, notices = _spec(context, session, entity, name, source, output)
    spec = replace(spec, redrive=redrive)
    check_format(spec.settings.output_file_name)
    if not is_remote(output):   # `check_remote` has looked already, without a transaction
        check_free(LocalStore(Path(output)), spec.settings.output_file_name, output)
    live = session.scalar(select(Job).where(Job.output == output, Job.ended_at.is_(None)))
    if live is not None:
        raise Conflict(
            f"job {live.name} is writing to {output}; choose another output path",
            code="OutputExists", target=output,
        )
    job = Job(
        name=name, endpoint=endpoint, deployment=wanted, request=asked.to_json(),
        request_id=asked.request_id, spec=_spec_json(spec), output=output,
        status=JobStatus.NOT_STARTED,
    )
    session.add(job)
    begin(session, "job.start", f"jobs/{name}", {"name": name})
    return Invoked(job, True, notices)


def _effective(entity: BatchDeployment, job: BatchJobProperties) -> BatchDeployment:
    """Return the deployment with this job's own settings."""
    settings = entity.settings
    changed = {
        name: getattr(job, name) for name in (
            "mini_batch_size", "split", "error_threshold", "output_file_name", "output_action",
            "logging_level", "max_concurrency_per_instance",
        ) if getattr(job, name) is not None
    }
    if job.retry_settings is not None:
        own = job.retry_settings.model_dump(exclude_none=True)
        changed["retry_settings"] = RetrySettings(**settings.retry_settings.model_dump() | own)
    count = job.instance_count or entity.resources.instance_count
    return entity.model_copy(update={
        "settings": settings.model_copy(update=changed),
        "resources": Resources(
            instance_count=count,
            instance_type=job.instance_type or entity.resources.instance_type,
            properties=entity.resources.properties,
        ),
        "environment_variables": {**entity.environment_variables, **job.environment_variables},
    })


def _input(
    context: Context, session: Session, who: Principal, job: BatchJobProperties
) -> tuple[str, str]:
    """Return the path or URI of the one data input, and `uri_file` or `uri_folder`."""
    given = {k: v for k, v in job.input_data.items() if v.job_input_type != "Literal"}
    if len(given) != 1 or len(given) != len(job.input_data):
        raise InvalidInput(
            f"inputData: expected exactly one data input, got {len(job.input_data)}",
            target="/properties/inputData",
        )
    (name, one), = given.items()
    target = f"/properties/inputData/{name}/uri"
    if one.uri is None:
        raise InvalidInput(f"inputData.{name}.uri: missing; it is required", target=target)
    uri, is_folder = one.uri, one.job_input_type in _FOLDERS
    is_reference = uri.startswith("azureml:") and not is_datastore_path(uri)
    if is_reference or is_resource_id(uri):
        asset = assets.find(session, "data", uri)
        found, is_folder = str(asset.path), asset.properties.get("dataType") != "uri_file"
    else:
        found = storage.resolve_uri(context, session, who, uri)
    if is_remote(found):
        if is_folder and not is_bucket(found):
            raise InvalidInput(
                f"the input {redacted(found)} is a folder, and http has none to list; give the "
                "URI of one file and --input-type uri_file",
                target=target,
            )
    else:
        _check_local_input(Path(found), is_folder, target)
    return found, "uri_folder" if is_folder else "uri_file"


def _check_local_input(path: Path, is_folder: bool, target: str) -> None:
    if not os.path.exists(path):
        raise InvalidInput(f"the input {path} does not exist", code="InputMissing", target=target)
    if is_folder != path.is_dir():
        is_, was = ("a file", "uri_folder") if is_folder else ("a folder", "uri_file")
        raise InvalidInput(
            f"the input {path} is {is_}, but its type is {was}; give --input-type "
            f"{'uri_file' if is_folder else 'uri_folder'}",
            target=target,
        )
    if not os.access(path, os.R_OK | (os.X_OK if is_folder else 0)):
        raise InvalidInput(f"the input {path} cannot be read: permission denied", target=target)


def _output(
    context: Context, session: Session, who: Principal, job: BatchJobProperties, name: str
) -> str:
    if not job.output_data:
        return str(context.workspace.output_folder(name))
    if len(job.output_data) > 1:
        raise InvalidInput("outputData: expected one output", target="/properties/outputData")
    (key, one), = job.output_data.items()
    if one.uri is None:
        return str(context.workspace.output_folder(name))
    found = storage.resolve_uri(context, session, who, one.uri)
    if not is_remote(found):
        _check_local_output(Path(found), f"/properties/outputData/{key}/uri")
    elif not is_bucket(found):
        raise InvalidInput(
            f"the output path {redacted(found)} cannot be written over http; give a folder, "
            "s3://BUCKET/PATH or azureml://datastores/NAME/paths/PATH",
            target=f"/properties/outputData/{key}/uri",
        )
    return found


def _check_local_output(path: Path, target: str) -> None:
    existing = next(parent for parent in (path, *path.parents) if os.path.exists(parent))
    if not existing.is_dir():
        raise Conflict(
            f"the output path {existing} is a file; give a folder", code="OutputExists",
            target=target,
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InvalidInput(
            f"the output path {path} cannot be written: permission denied at {existing}",
            target=target,
        )


def check_remote(
    context: Context, who: Principal, asked: Asked, source: tuple[str, str] | None = None
) -> None:
    """Look at a job's remote input and output, before the transaction that adds the job.

    A redrive gives its `source`, which is its job's, resolved.

    Raises:
        As `invoke`, and what reading there raises.
    """
    job = asked.properties
    with context.database.read() as session:
        row = get_endpoint(session, asked.endpoint)
        if asked.find(session) is not None:
            return   # a repeat is answered with its job, whatever became of the input since
        chosen = get_deployment(session, asked.endpoint, _deployment_of(asked, row))
        uri, kind = source or _input(context, session, who, job)
        name = asked.name or ""
        output = _output(context, session, who, job, name)
        access = storage.access_to(context, session, [uri, output])
    try:
        _look(uri, kind, output, access, job, chosen)
    except NotAuthorized as error:   # of the store; the caller's own token is as good as ever
        raise InvalidInput(error.message, code=error.code, target=error.target) from error


def _look(
    source: str, kind: str, output: str, access: Access, job: BatchJobProperties,
    chosen: Deployment,
) -> None:
    if is_remote(source):
        check_kind(source, access, kind)
    if is_remote(output):
        rows = job.output_file_name or chosen.properties.get("outputFileName", "predictions.csv")
        check_free(open_store(output, access), rows, output)


def _spec(
    context: Context, session: Session, entity: BatchDeployment, name: str,
    source: tuple[str, str], output: str,
) -> tuple[JobSpec, list[str]]:
    scored = scored_by(session, entity)
    script = entity.code_configuration.scoring_script if entity.code_configuration else ""
    environment = surroundings(session, entity, scored)
    workers, notices = workers_of(context, session, entity)
    settings = resolve_split(JobSettings(
        mini_batch_size=entity.settings.mini_batch_size,
        max_retries=entity.settings.retry_settings.max_retries,
        timeout_s=float(entity.settings.retry_settings.timeout),
        error_threshold=entity.settings.error_threshold,
        output_action=entity.settings.output_action,
        output_file_name=entity.settings.output_file_name,
        logging_level=entity.settings.logging_level.upper(),
        environment_variables=dict(entity.environment_variables),
    ), entity.settings.split, None if scored.flavor else Path(scored.code_path, script))
    folder = JobFolder(context.workspace.job_folder(name))
    spec = JobSpec(
        name=name, input=source[0], input_type=source[1], output=output,
        work=str(folder.work.root), logs=str(folder.logs), code=scored.code_path,
        scoring_script=script, model=scored.model_path, flavor=scored.flavor,
        settings=settings, workers=workers, packages=environment.packages,
        environment=environment.spec,
        hashes={
            "code": (scored.code.content_hash or "") if scored.code else "",
            "model": scored.model_hash,
            "environment": environment.hash,
            "settings": hash_of(settings.__dict__),
        },
        assets={
            what: f"azureml:{row.name}:{row.version}"
            for what, row in (
                ("code", scored.code), ("model", scored.model), ("environment", environment.row),
            ) if row is not None
        },
    )
    return spec, notices


def _spec_json(spec: JobSpec) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(spec.to_bytes())
    return found
