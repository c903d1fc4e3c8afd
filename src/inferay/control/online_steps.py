"""How what was put of online endpoints comes about: at the edge, and as processes on Ray Serve.

A step here looks at the rows, at the edge and at Serve; whoever must wait says `NotYet`. A new
revision is declared beside the one that serves, and takes over in one publication of the routing
table once its instances are up; until then, and if it fails, nothing changes for requests.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from inferay.control.applications import (
    as_revision,
    needs_new_processes,
    read_application,
    write_application,
)
from inferay.control.context import Context
from inferay.control.fleet import publish
from inferay.control.issuers import refresh
from inferay.control.online import live_revision
from inferay.control.operations import NotYet, Steps
from inferay.control.tables import Deployment, Endpoint, Operation, Revision, now
from inferay.engine.scoring.environments import ensure
from inferay.errors import Conflict, InferayError, Unavailable, UserCodeError
from inferay.serve.edge.client import EdgeState
from inferay.serve.mirror.pairs import remove_pairs
from inferay.serve.replica_spec import ApplicationSpec

log = logging.getLogger(__name__)

#: A replica's process takes seconds to start, whatever its probe says.
START_S_MIN = 60.0

#: How old Serve's answer may be, while one waits for an application.
STATUS_AGE_S = 2.0

#: Revisions of a deployment whose logs are kept.
LOGS_MAX = 10


def add_steps(steps: Steps) -> None:
    """Say how online endpoints and deployments are put and deleted."""
    steps.add(
        "online_endpoint.put", [_fetch_keys, _publish, _activate_endpoint], _on_endpoint_failure
    )
    steps.add("online_endpoint.rekey", [_publish], _on_rekey_failure)
    steps.add(
        "online_endpoint.delete", [_publish, _remove_revisions, _drop_endpoint],
        _on_endpoint_failure,
    )
    steps.add(
        "online_deployment.put",
        [_build_environment, _declare, _wait_until_up, _switch, _publish, _retire,
         _activate_deployment],
        _on_put_failure,
    )
    steps.add("online_deployment.delete", [_publish, _drop_deployment], _on_delete_failure)


def _fetch_keys(context: Context, operation: Operation) -> None:
    """Take over the keys of the issuer that the endpoint trusts, if it does.

    One that is away holds up no other change of an endpoint that has its keys already.
    """
    name = operation.payload["name"]
    try:
        refresh(context, name)
    except Unavailable as error:
        with context.database.read() as session:
            row = session.get(Endpoint, name)
            has_keys = row is not None and bool(row.trusted_keys)
        if not has_keys:
            raise
        log.warning("endpoint %s: %s", name, error.message)


def _publish(context: Context, operation: Operation) -> None:
    """Let the edge know the rows; it is waited for as long as it takes: nothing else can."""
    try:
        publish(context)
    except Unavailable:
        raise NotYet from None


def _activate_endpoint(context: Context, operation: Operation) -> None:
    with context.database.write() as session:
        row = session.get_one(Endpoint, operation.payload["name"])
        if row.state != "Deleting":
            row.state = "Succeeded"


def _remove_revisions(context: Context, operation: Operation) -> None:
    with context.database.write() as session:
        session.execute(delete(Revision).where(Revision.endpoint == operation.payload["name"]))


def _drop_endpoint(context: Context, operation: Operation) -> None:
    name = operation.payload["name"]
    with context.database.write() as session:
        # A deployment that was being put meanwhile may have declared another one.
        session.execute(delete(Revision).where(Revision.endpoint == name))
        session.execute(delete(Deployment).where(Deployment.endpoint == name))
        session.execute(delete(Endpoint).where(Endpoint.name == name))
    for folder in (context.workspace.logs / "online" / name, context.workspace.pairs_folder(name)):
        shutil.rmtree(folder, ignore_errors=True)   # replicas that drain may still write there


def _build_environment(context: Context, operation: Operation) -> None:
    """Have the environment before anything of the revision starts; the old one serves meanwhile."""
    environment = _sized(context, operation).spec.server.environment
    if environment is not None:
        ensure(environment)


def _declare(context: Context, operation: Operation) -> None:
    """Add the revision to those that shall run, or change the one that does in its number."""
    endpoint, name = _key(operation)
    application = _sized(context, operation)
    with context.database.write() as session:
        _check_is_there(session, endpoint, name)
        live = live_revision(session, endpoint, name)
        if live is not None and not needs_new_processes(
            read_application(live.application), application
        ):
            live.application = write_application(as_revision(context, application, live.name))
            return
        _remove_idle(session, endpoint, name)
        revision = operation.payload["revision"]
        session.add(Revision(
            endpoint=endpoint, deployment=name, name=revision, is_live=False,
            application=write_application(as_revision(context, application, revision)),
        ))
    _prune_logs(context, endpoint, name)


def _wait_until_up(context: Context, operation: Operation) -> None:
    """Return once enough instances of the revision are up; fail with what keeps them from it."""
    with context.database.read() as session:
        revision = _revision_of(session, operation)
    application = read_application(revision.application)
    try:
        state = context.edge().state()
    except Unavailable as error:
        _check_time(context, operation, application, 0, error.message)
        raise NotYet from None
    up, least = _up(state, application), _least(application)
    wanted = least if revision.is_live else application.instances
    if up >= wanted or (up >= least and _is_late(context, operation, application)):
        return
    _check_failures(state, application)
    _check_time(context, operation, application, up, _serve_says(context, revision))
    raise NotYet


def _switch(context: Context, operation: Operation) -> None:
    """Make the revision the one that the routing table names."""
    with context.database.write() as session:
        wanted = _revision_of(session, operation)
        live = live_revision(session, wanted.endpoint, wanted.deployment)
        if live is not None:
            live.is_live = False
        wanted.is_live = True


def _retire(context: Context, operation: Operation) -> None:
    """Let the revision that served before end; its replicas leave the edge, and drain."""
    with context.database.write() as session:
        _remove_idle(session, *_key(operation))


def _activate_deployment(context: Context, operation: Operation) -> None:
    with context.database.write() as session:
        row = _check_is_there(session, *_key(operation))
        row.state, row.error = "Succeeded", None


def _drop_deployment(context: Context, operation: Operation) -> None:
    endpoint, name = _key(operation)
    with context.database.write() as session:
        for table, column in ((Revision, Revision.deployment), (Deployment, Deployment.name)):
            session.execute(delete(table).where(table.endpoint == endpoint, column == name))
    shutil.rmtree(context.workspace.online_logs(endpoint, name), ignore_errors=True)
    remove_pairs(context.workspace.pairs_folder(endpoint), name)


def _on_endpoint_failure(session: Session, operation: Operation, error: InferayError) -> None:
    row = session.get(Endpoint, operation.payload["name"])
    if row is not None:
        row.state = "Failed"


def _on_rekey_failure(session: Session, operation: Operation, error: InferayError) -> None:
    """Leave the row: the key is another one, and the edge is told of it when it answers."""


def _on_put_failure(session: Session, operation: Operation, error: InferayError) -> None:
    """Say so in the row, and let the revision end that did not come up; the old one serves on."""
    endpoint, name = _key(operation)
    _remove_idle(session, endpoint, name)
    row = session.get(Deployment, (endpoint, name))
    if row is not None and row.state != "Deleting":
        row.state, row.error = "Failed", error.as_dict()


def _on_delete_failure(session: Session, operation: Operation, error: InferayError) -> None:
    row = session.get(Deployment, _key(operation))
    if row is not None:
        row.state, row.error = "Failed", error.as_dict()


# What steps look at.


def _key(operation: Operation) -> tuple[str, str]:
    return operation.payload["endpoint"], operation.payload["name"]


def _check_is_there(session: Session, endpoint: str, name: str) -> Deployment:
    """Return the deployment's row.

    Raises:
        Conflict: It, or its endpoint, was deleted meanwhile.
    """
    above = session.get(Endpoint, endpoint)
    row = session.get(Deployment, (endpoint, name))
    if above is None or above.state == "Deleting" or row is None or row.state == "Deleting":
        raise Conflict(
            f"deployment '{name}' of endpoint '{endpoint}' was deleted while it was put",
            target=name,
        )
    return row


def _revision_of(session: Session, operation: Operation) -> Revision:
    """Return what the operation brings up: its own revision, or the live one that it changed."""
    endpoint, name = _key(operation)
    _check_is_there(session, endpoint, name)
    own = session.get(Revision, (endpoint, name, operation.payload["revision"]))
    found = own or live_revision(session, endpoint, name)
    if found is None:
        raise Conflict(f"deployment '{name}' was changed while it was put", target=name)
    return found


def _remove_idle(session: Session, endpoint: str, name: str) -> None:
    session.execute(delete(Revision).where(
        Revision.endpoint == endpoint, Revision.deployment == name, Revision.is_live.is_(False)
    ))


def _sized(context: Context, operation: Operation) -> ApplicationSpec:
    """Return what was put, with as many first instances as the load has made of what serves now.

    Serve goes back to the first number whenever anything of an application changes, and a new
    revision gets all the requests at once.
    """
    application = read_application(operation.payload["application"])
    with context.database.read() as session:
        live = live_revision(session, *_key(operation))
    scale = application.scale
    if live is None or scale is None:
        return application
    try:
        up = _up(context.edge().state(), read_application(live.application))
    except Unavailable as error:
        _check_time(context, operation, application, 0, error.message)
        raise NotYet from None
    return replace(application, instances=min(max(up, application.instances), scale.replicas_max))


def _least(application: ApplicationSpec) -> int:
    """Return how many instances there are whatever the load."""
    scale = application.scale
    return application.instances if scale is None else scale.replicas_min


def _up(state: EdgeState, application: ApplicationSpec) -> int:
    spec = application.spec
    of = (spec.endpoint, spec.deployment, spec.revision)
    return sum(
        (one.endpoint, one.deployment, one.revision) == of and one.is_up and not one.is_leaving
        for one in state.replicas
    )


def _check_failures(state: EdgeState, application: ApplicationSpec) -> None:
    """Raise what the revision's replica told the edge when its constructor failed."""
    spec = application.spec
    of = (spec.endpoint, spec.deployment, spec.revision)
    for one in state.failures:
        if (one.endpoint, one.deployment, one.revision) == of:
            error: dict[str, Any] = dict(one.error)
            details = error.get("details") or [{}]
            raise UserCodeError(
                str(error.get("message")), code=error.get("code"), target=error.get("target"),
                details=details[0].get("message"),
            )


def _serve_says(context: Context, revision: Revision) -> str:
    """Return what Serve says of the revision, as far as it is one that may still come up.

    Raises:
        UserCodeError: Serve has given up on it.
    """
    name = read_application(revision.application).name
    try:
        found = context.serve().status(STATUS_AGE_S).get(name)
    except Unavailable as error:
        return error.message
    if found is None:
        return "Ray Serve does not know it yet"
    if found.has_failed and not revision.is_live:
        lines = found.message.splitlines() or ["Ray Serve gives no reason"]
        raise UserCodeError(
            f"an instance of deployment '{revision.deployment}' ended while it started, and Ray "
            f"Serve says of it: {lines[-1]}; see inferay online-deployment get-logs "
            f"-e {revision.endpoint} -n {revision.deployment}",
            code="ReplicaFailed", target=revision.deployment, details=found.message or None,
        )
    return found.message or f"Ray Serve says {found.status}"


def _check_time(
    context: Context, operation: Operation, application: ApplicationSpec, up: int, said: str
) -> None:
    """Check that the revision may still take its time.

    Raises:
        Unavailable: It has had it.
    """
    if not _is_late(context, operation, application):
        return
    spec = application.spec
    raise Unavailable(
        f"{up} of {_least(application)} instances of deployment '{spec.deployment}' were up "
        f"after {_limit_s(application):g} s (initial_delay + period x failure_threshold of its "
        f"readiness_probe): {said.splitlines()[-1] if said else 'no reason is known'}; see "
        f"inferay online-deployment get-logs -e {spec.endpoint} -n {spec.deployment}",
        code="NotReady", target=spec.deployment, details=said or None,
    )


def _is_late(context: Context, operation: Operation, application: ApplicationSpec) -> bool:
    waits_since = max(operation.created_at, context.started_at)
    return (now() - waits_since).total_seconds() >= _limit_s(application)


def _limit_s(application: ApplicationSpec) -> float:
    probe = application.spec.readiness
    return max(START_S_MIN, probe.initial_delay_s + probe.period_s * probe.failure_threshold)


def _prune_logs(context: Context, endpoint: str, name: str) -> None:
    """Delete the logs of revisions long gone; their names grow with time."""
    folder = context.workspace.online_logs(endpoint, name)
    with context.database.read() as session:
        kept = set(session.scalars(select(Revision.name).where(
            Revision.endpoint == endpoint, Revision.deployment == name
        )))
    old = sorted(one for one in folder.glob("*") if one.name not in kept)
    for one in old[:-LOGS_MAX]:
        shutil.rmtree(one, ignore_errors=True)
