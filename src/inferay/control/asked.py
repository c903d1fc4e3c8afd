"""What is asked for, by an invocation or a redrive, and the job that the same was asked for before.

What it leads to (which deployment is the default, where the input lies) is no part of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from inferay.control.tables import Job
from inferay.engine.resources import BatchJobBody, BatchJobProperties, parse_body
from inferay.errors import Conflict, InvalidInput
from inferay.jobs.ray_jobs import check_name


@dataclass(frozen=True)
class Asked:
    """What is asked for.

    Attributes:
        endpoint: Which endpoint.
        deployment: Which deployment of it; None: the default one.
        properties: The invocation's; a redrive's with those that it keeps of its job.
        request_id: `repeatability_request-id`: the job's name where the properties give none.
        redrive_of: Whose failed items are scored; None: the whole input is.
        merge: Of a redrive: whether its output is the complete one.

    Raises:
        InvalidInput: No job may have that name.
    """

    endpoint: str
    deployment: str | None
    properties: BatchJobProperties
    request_id: str | None = None
    redrive_of: str | None = None
    merge: bool = False

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name)

    @property
    def name(self) -> str | None:
        """The job's name, if it is given one."""
        return self.properties.name or self.request_id

    def to_json(self) -> dict[str, Any]:
        """Return it as it is kept with the job."""
        found: dict[str, Any] = {
            "properties": self.properties.to_json(), "endpoint": self.endpoint,
        }
        if self.deployment is not None:
            found["deployment"] = self.deployment
        if self.redrive_of is not None:
            found |= {"redriveOf": self.redrive_of, "merge": self.merge}
        return found

    def find(self, session: Session) -> Job | None:
        """Return the job that the same was asked for before, if there is one.

        Raises:
            Conflict: Something else was, by the same request id or name.
        """
        by_id = select(Job).where(Job.request_id == self.request_id)
        known = session.scalar(by_id) if self.request_id is not None else None
        if known is not None and known.request != self.to_json():
            raise Conflict(
                f"the repeatability_request-id {self.request_id} is that of job '{known.name}', "
                "an invocation with other content; choose another id",
                code="JobExists", target=known.name,
            )
        if known is None and self.name is not None:
            known = session.get(Job, self.name)
        if known is not None and known.request != self.to_json():
            raise Conflict(
                f"the job name '{known.name}' is taken by an invocation with other content; choose "
                "another name",
                code="JobExists", target=known.name,
            )
        return known


def parse_invocation(
    endpoint: str, body: Mapping[str, Any], *, deployment: str | None, request_id: str | None
) -> Asked:
    """Return what an invocation asks for.

    Args:
        endpoint: Which endpoint.
        body: Azure's invocation body.
        deployment: The deployment to use; the endpoint's default if None.
        request_id: `repeatability_request-id`, a GUID.

    Raises:
        InvalidInput: The body or the id is wrong.
    """
    properties = parse_body(BatchJobBody, body).properties
    return Asked(endpoint, deployment or None, properties, _guid(request_id))


def _guid(request_id: str | None) -> str | None:
    if request_id is None:
        return None
    try:
        return str(uuid.UUID(request_id))
    except ValueError:
        raise InvalidInput(
            f"repeatability_request-id: expected a GUID, got '{request_id[:100]}'",
            target="repeatability_request-id",
        ) from None
