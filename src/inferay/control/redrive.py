"""A redrive of a job: what is asked for, resolved into the spec of a new one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from inferay.control.asked import Asked
from inferay.control.context import Context
from inferay.control.invoke import Invoked, add_job, check_remote
from inferay.control.jobs import get_job
from inferay.control.storage import access_of
from inferay.control.tables import Job
from inferay.control.tokens import Principal
from inferay.engine.batch.formats import format_of
from inferay.engine.batch.output import SUCCESS, is_published
from inferay.engine.batch.redrive import check_argument
from inferay.engine.batch.spec import JobSpec, Redrive
from inferay.engine.batch.split.declared import declared_table
from inferay.engine.batch.store import open_store
from inferay.engine.resources import BatchJobBody, RedriveBody, format_duration, parse_body
from inferay.errors import Conflict, InvalidInput
from inferay.jobs.states import JobStatus

#: What an invocation says of its own job, and not of one that does the same again.
_OWN = ("name", "outputData")


def redrive(context: Context, who: Principal, name: str, body: Mapping[str, Any]) -> Invoked:
    """Add the job that scores the failed items of another one; blocks while it looks at outputs.

    A repeat is answered with the job that it made, whatever became of the old one's output since.

    Raises:
        InvalidInput: The body is wrong, or the formats of a merge differ.
        NotFound: The job or the deployment does not exist.
        Conflict: The job has not completed, its output is gone, nothing failed, the new output
            exists or is taken, or the new name is, with other content.
    """
    wanted = parse_body(RedriveBody, body)
    if wanted.properties.input_data:
        raise InvalidInput("inputData: a redrive has the input of its job", target="inputData")
    with context.database.read() as session:
        old = get_job(session, name)
        asked = _asked(old, wanted)
        known = asked.find(session)
    if known is not None:
        return Invoked(known, False, [])
    before = JobSpec.from_dict(old.spec or {})
    _check_failed_items(context, old)
    check_remote(context, who, asked, (before.input, before.input_type))
    with context.database.write() as session:
        known = asked.find(session)
        return Invoked(known, False, []) if known else _add(context, session, who, asked, before)


def _add(
    context: Context, session: Session, who: Principal, asked: Asked, before: JobSpec
) -> Invoked:
    is_text = before.settings.output_action == "append_row"
    invoked = add_job(
        context, session, who, asked, str(asked.deployment), (before.input, before.input_type),
        Redrive(
            before.name, before.work, before.output,
            before.settings.output_file_name if is_text else "", asked.merge,
        ),
    )
    after = JobSpec.from_dict(invoked.job.spec or {})
    check_argument(before.name, bool(before.settings.table), after.settings.table)
    if asked.merge:
        _check_mergeable(before, after)
    return invoked


def _check_failed_items(context: Context, job: Job) -> None:
    """Check that a job has completed, and that its output says that items failed."""
    name = job.name
    if job.status != JobStatus.COMPLETED:
        hint = "; let it end first" if job.ended_at is None else \
            f"; `inferay job resume -n {name}` goes on with it"
        raise Conflict(
            f"job {name} is {job.status}; only a completed job can be redriven{hint}",
            code="JobNotCompleted", target=name,
        )
    if _items_failed(context, job) == 0:
        raise Conflict(
            f"no item of job {name} failed: there is nothing to redrive", code="NothingToRedrive",
            target=name,
        )


def _items_failed(context: Context, job: Job) -> int:
    output = open_store(job.output, access_of(context, job))
    try:
        if is_published(output, job.name):
            return int(json.loads(output.read(SUCCESS))["counts"]["items_failed"])
    except (ValueError, KeyError, TypeError):
        pass
    raise Conflict(
        f"{job.output} has no {SUCCESS} of job {job.name} any more; put its output back, or invoke "
        "the endpoint again", code="OutputMissing", target=job.name,
    )


def _asked(old: Job, body: RedriveBody) -> Asked:
    """Return what the old job was asked for and ran with, and what is asked for besides."""
    given = {k: v for k, v in old.request["properties"].items() if k not in _OWN}
    kept = _merged(given, _settings_of(JobSpec.from_dict(old.spec or {})))
    whole = _merged(kept, body.properties.to_json())
    properties = parse_body(BatchJobBody, {"properties": whole}).properties
    return Asked(
        old.endpoint, body.deployment_name or old.deployment, properties,
        redrive_of=old.name, merge=body.merge,
    )


def _settings_of(spec: JobSpec) -> dict[str, Any]:
    """Return a job's settings, its deployment's of that time among them, as an invocation's."""
    settings = spec.settings
    # Where the script itself asked for a table, its successor has to as well.
    is_declared = bool(spec.flavor) or declared_table(Path(spec.code, spec.scoring_script)) != ""
    return {
        "miniBatchSize": settings.mini_batch_size,
        "split": "auto" if is_declared and settings.split == "rows" else settings.split,
        "errorThreshold": settings.error_threshold,
        "retrySettings": {
            "maxRetries": settings.max_retries, "timeout": format_duration(settings.timeout_s),
        },
        "outputAction": settings.output_action,
        "outputFileName": settings.output_file_name,
        "loggingLevel": settings.logging_level,
        "environmentVariables": settings.environment_variables,
    }


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return both, with the value above where there are two; mappings are merged likewise."""
    both = {
        key: _merged(below[key], value) for key, value in above.items()
        if isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
    }
    return {**below, **above, **both}


def _check_mergeable(old: JobSpec, new: JobSpec) -> None:
    was, is_ = old.settings, new.settings
    if was.output_action != is_.output_action:
        raise InvalidInput(
            f"output_action is {is_.output_action}, but job {old.name} had {was.output_action}: "
            "they cannot be merged; give --set settings.output_action", target="outputAction",
        )
    if format_of(was.output_file_name) != format_of(is_.output_file_name):
        raise InvalidInput(
            f"{is_.output_file_name} has another format than {was.output_file_name} of job "
            f"{old.name}: they cannot be merged; give --set "
            f"settings.output_file_name={was.output_file_name}", target="outputFileName",
        )
