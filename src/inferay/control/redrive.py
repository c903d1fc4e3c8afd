"""A redrive of a job: what is asked for, resolved into the spec of a new one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from inferay.control.context import Context
from inferay.control.invoke import Invoked, add_job, check_remote, repeat
from inferay.control.jobs import get_job
from inferay.control.storage import access_of
from inferay.control.tables import Job
from inferay.control.tokens import Principal
from inferay.engine.batch.formats import format_of
from inferay.engine.batch.output import SUCCESS, is_published
from inferay.engine.batch.redrive import check_argument
from inferay.engine.batch.spec import JobSpec, Redrive
from inferay.engine.batch.store import open_store
from inferay.engine.resources import BatchJobBody, RedriveBody, parse_body
from inferay.errors import Conflict, InvalidInput
from inferay.jobs.ray_jobs import check_name
from inferay.jobs.states import JobStatus

#: What an invocation says of its own job, and not of one that does the same again.
_OWN = ("name", "outputData")


@dataclass(frozen=True)
class Published:
    """What a completed job's output says of it."""

    items_failed: int


def published_facts(context: Context, name: str) -> Published:
    """Return what a job's output says of it; holds no transaction meanwhile.

    Raises:
        NotFound: There is no such job.
        Conflict: It has not completed, or its output is gone.
    """
    with context.database.read() as session:
        job = get_job(session, name)
    if job.status != JobStatus.COMPLETED:
        hint = "; let it end first" if job.ended_at is None else \
            f"; `inferay job resume -n {name}` goes on with it"
        raise Conflict(
            f"job {name} is {job.status}; only a completed job can be redriven{hint}",
            code="JobNotCompleted", target=name,
        )
    output = open_store(job.output, access_of(context, job))
    try:
        if is_published(output, name):
            found = json.loads(output.read(SUCCESS))
            return Published(found["counts"]["items_failed"])
    except (ValueError, KeyError, TypeError):
        pass
    raise Conflict(
        f"{job.output} has no {SUCCESS} of job {name} any more; put its output back, or invoke "
        "the endpoint again", code="OutputMissing", target=name,
    )


def check_redrive(context: Context, who: Principal, name: str, body: Mapping[str, Any]) -> None:
    """Look at a redrive's remote input and output, before the transaction that adds the job.

    Raises:
        As `redrive`, and what reading there raises.
    """
    asked = parse_body(RedriveBody, body)
    with context.database.read() as session:
        old = get_job(session, name)
    request, before = _request(old, asked), JobSpec.from_dict(old.spec or {})
    check_remote(
        context, who, old.endpoint, {"properties": request["properties"]}, request["deployment"],
        None, (before.input, before.input_type),
    )


def redrive(
    context: Context, session: Session, who: Principal, name: str, body: Mapping[str, Any],
    published: Published,
) -> Invoked:
    """Add the job that scores the failed items of another one, in the caller's transaction.

    Raises:
        InvalidInput: The body is wrong, or the formats of a merge differ.
        NotFound: The deployment does not exist.
        Conflict: Nothing failed, the output exists or is taken, or the name is, with other content.
    """
    asked = parse_body(RedriveBody, body)
    if asked.properties.input_data:
        raise InvalidInput("inputData: a redrive has the input of its job", target="inputData")
    old = get_job(session, name)
    if published.items_failed == 0:
        raise Conflict(
            f"no item of job {name} failed: there is nothing to redrive", code="NothingToRedrive",
            target=name,
        )
    new_name = asked.properties.name or str(uuid.uuid4())
    check_name(new_name)
    request = _request(old, asked)
    known = session.get(Job, new_name)
    if known is not None:
        return repeat(known, request)
    properties = parse_body(BatchJobBody, {"properties": request["properties"]}).properties
    before = JobSpec.from_dict(old.spec or {})
    is_text = before.settings.output_action == "append_row"
    invoked = add_job(
        context, session, who, new_name, request, properties,
        (before.input, before.input_type), Redrive(
            name, before.work, before.output,
            before.settings.output_file_name if is_text else "", asked.merge,
        ),
    )
    after = JobSpec.from_dict(invoked.job.spec or {})
    check_argument(name, bool(before.settings.table), after.settings.table)
    if asked.merge:
        _check_mergeable(before, after)
    return invoked


def _request(old: Job, asked: RedriveBody) -> dict[str, Any]:
    """Return the old job's request, with what was asked for besides."""
    before = old.request["properties"]
    kept = {key: value for key, value in before.items() if key not in _OWN}
    return {
        "properties": {**kept, **asked.properties.to_json()}, "endpoint": old.endpoint,
        "deployment": asked.deployment_name or old.deployment,
        "redriveOf": old.name, "merge": asked.merge,
    }


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
