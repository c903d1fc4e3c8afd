"""The control plane's tables. What a REST body says is kept as its JSON; the rest are columns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def now() -> datetime:
    """Return the time, in UTC and without zone, as the database keeps it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {   # noqa: RUF012 (SQLAlchemy's)
        dict[str, Any]: JSON, list[str]: JSON, list[dict[str, Any]]: JSON,
    }


class Timed:
    """When a row was made and last changed."""

    created_at: Mapped[datetime] = mapped_column(default=now)
    modified_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class Endpoint(Timed, Base):
    """An endpoint, and the REST properties that it was put with.

    Attributes:
        kind: `batch` or `online`; names are unique over both.
        secrets: The keys of an online endpoint that has some, encrypted.
        key_digests: What the edge knows of them: the primary's, the secondary's.
        token_version: The `ver` of an online endpoint's tokens; another one ends them all.
        trusted_keys: Of the issuer outside whose tokens open it too, as `TrustedKey` has them.
    """

    __tablename__ = "endpoints"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    tags: Mapped[dict[str, Any]] = mapped_column(default=dict)
    properties: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(16))
    secrets: Mapped[str | None]
    key_digests: Mapped[list[str]] = mapped_column(default=list, server_default=text("'[]'"))
    token_version: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    trusted_keys: Mapped[list[dict[str, Any]]] = mapped_column(
        default=list, server_default=text("'[]'")
    )


class Deployment(Timed, Base):
    """A deployment of an endpoint.

    Attributes:
        instances: Of an online one: what its body declared; its scale settings may override it.
        error: Why its state is Failed, as Azure's error object.
        notices: What was accepted although it means less here than its author may think.
    """

    __tablename__ = "deployments"

    endpoint: Mapped[str] = mapped_column(ForeignKey("endpoints.name"), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    tags: Mapped[dict[str, Any]] = mapped_column(default=dict)
    properties: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(16))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    notices: Mapped[list[str]] = mapped_column(default=list)
    instances: Mapped[int | None]


class Revision(Timed, Base):
    """A version of an online deployment that shall run: the rows are what Ray Serve is told.

    Attributes:
        application: What `applications.read_application` reads.
        is_live: Whether it takes the deployment's requests; one at most does.
    """

    __tablename__ = "revisions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["endpoint", "deployment"], ["deployments.endpoint", "deployments.name"]
        ),
    )

    endpoint: Mapped[str] = mapped_column(String(64), primary_key=True)
    deployment: Mapped[str] = mapped_column(String(255), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    application: Mapped[dict[str, Any]] = mapped_column()
    is_live: Mapped[bool] = mapped_column(default=False)


class Asset(Timed, Base):
    """A version of a model, data asset, environment or code.

    Attributes:
        kind: `models`, `data`, `environments` or `codes`.
        content_hash: sha256 of the snapshot, for models and code.
        path: Local path of the content: the snapshot's, or what the data asset points to.
        order: Grows with each version of a name, so that the latest is known.
        mlflow_version: Of a model: MLflow's number for it, once it is in the registry.
        mlflow_notice: In what the registry disagrees with this row; None: in nothing.
        labels: The aliases that the registry has for it.
    """

    __tablename__ = "assets"
    __table_args__ = (UniqueConstraint("kind", "name", "version"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(255))
    version: Mapped[str] = mapped_column(String(255))
    properties: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(16))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    content_hash: Mapped[str | None] = mapped_column(String(64))
    path: Mapped[str | None]
    is_archived: Mapped[bool] = mapped_column(default=False)
    mlflow_version: Mapped[str | None] = mapped_column(String(32))
    mlflow_notice: Mapped[str | None]
    labels: Mapped[list[str]] = mapped_column(default=list, server_default=text("'[]'"))


class Datastore(Timed, Base):
    """A datastore.

    Attributes:
        secrets: Its credentials, encrypted; they are not in its properties.
    """

    __tablename__ = "datastores"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    properties: Mapped[dict[str, Any]] = mapped_column(default=dict)
    is_builtin: Mapped[bool] = mapped_column(default=False)
    secrets: Mapped[str | None]


class Compute(Timed, Base):
    """A named pool of instances."""

    __tablename__ = "computes"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    properties: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Job(Timed, Base):
    """A batch job.

    Attributes:
        request: What was asked for, canonical: a repeat with the same content is the same job.
        request_id: The id that its caller gave the request, to repeat it by.
        spec: The frozen job spec, once resolved.
        output: Absolute path of its output folder.
        epoch: Which driver has it; 0 before the first submission.
        is_cancel_wanted: Whether someone asked for its end.
        resumes_without_progress: Drivers that died in a row and committed nothing.
        progress: How far it was when last seen.
        waiting_for: Why it is still queued, in plain words.
        tracked_as: Its status when MLflow was last told of it.
    """

    __tablename__ = "jobs"
    # Two jobs that write to one place are refused while the first one lives.
    __table_args__ = (
        Index("jobs_live_output", "output", unique=True,
              sqlite_where=text("ended_at IS NULL"), postgresql_where=text("ended_at IS NULL")),
    )

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    endpoint: Mapped[str] = mapped_column(String(64), index=True)
    deployment: Mapped[str] = mapped_column(String(255))
    request: Mapped[dict[str, Any]] = mapped_column()
    request_id: Mapped[str | None] = mapped_column(String(36), unique=True, index=True)
    spec: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    output: Mapped[str]
    status: Mapped[str] = mapped_column(String(16), index=True)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    epoch: Mapped[int] = mapped_column(default=0)
    is_cancel_wanted: Mapped[bool] = mapped_column(default=False)
    resumes_without_progress: Mapped[int] = mapped_column(default=0)
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    waiting_for: Mapped[str | None]
    tracked_as: Mapped[str | None] = mapped_column(String(16))
    ended_at: Mapped[datetime | None]


class Operation(Timed, Base):
    """A mutation under way or done: which steps of it are.

    Attributes:
        kind: Which steps it has (`operations.STEPS`).
        target: What it changes, such as `endpoints/e`.
        step: How many of its steps are done.
        status: `Running`, `Succeeded` or `Failed`.
        tries: How often the current step failed without an explanation.
    """

    __tablename__ = "operations"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    sequence: Mapped[int] = mapped_column(unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    target: Mapped[str] = mapped_column(index=True)
    step: Mapped[int] = mapped_column(default=0)
    status: Mapped[str] = mapped_column(String(16), index=True)
    tries: Mapped[int] = mapped_column(default=0)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Token(Timed, Base):
    """A credential, by its digest.

    Attributes:
        role: `admin`, `reader` or `scorer`.
        endpoint: The one endpoint that a scorer may invoke, or None for all.
    """

    __tablename__ = "tokens"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    endpoint: Mapped[str | None] = mapped_column(String(64))
    expires_at: Mapped[datetime | None]
