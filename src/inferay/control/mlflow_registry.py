"""The models of the workspace in an MLflow registry, and those of the registry in the workspace.

Our rows are the truth about names, versions and content. Each points to a version of MLflow's,
which is tagged with both; one that somebody made in MLflow appears here under its number, with its
aliases as labels. Where the two disagree, the row says how, and neither is changed. All of it goes
on beside the registration of models, on a thread that nobody waits for.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from inferay.control.context import Context
from inferay.control.mlflow_store import MlflowStore
from inferay.control.operations import begin
from inferay.control.tables import Asset
from inferay.engine.resources.references import NAME
from inferay.engine.storage import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

#: The tags of MLflow's version that say which of ours it is.
VERSION_TAG = "inferay.version"
HASH_TAG = "inferay.content_hash"

#: How often a server is asked for what is new; the workspace's own store is a file that changes.
ASK_S = 15.0

#: How long a registry that failed is left alone.
PAUSE_S = 30.0

#: Models that are entered in one turn, versions of one answer, and versions that are looked at.
ENTERED_MAX = 50
PAGE = 200
VERSIONS_MAX = 20_000

#: The experiment of the runs that hold what was uploaded to a server.
EXPERIMENT = "inferay-models"


class MlflowRegistry:
    """Keeps the two in step; one thread calls `turn`."""

    def __init__(self, context: Context, store: MlflowStore, *, pause_s: float = PAUSE_S) -> None:
        self._context = context
        self._store = store
        self._pause_s = pause_s
        self._idle_until_s = 0.0
        self._read_s: float | None = None
        self._seen: int | None = None
        self._is_away = False

    def turn(self) -> None:
        """Enter models that are new here, and take over what is new there; blocks meanwhile."""
        if time.monotonic() < self._idle_until_s:
            return
        try:
            has_entered = self._enter_new()
            if has_entered or self._may_have_changed():
                self._read(self._store.client())
        except Exception as error:   # of the registry, which may be anybody's server
            if not self._is_away:
                log.warning(
                    "MLflow's registry %s cannot be kept in step (%s: %s); it is tried again every "
                    "%g s, and no model waits for it", redacted(self._store.uri),
                    type(error).__name__, str(error)[:500], self._pause_s,
                )
            self._is_away = True
            self._idle_until_s = time.monotonic() + self._pause_s
        else:
            self._is_away = False

    # -- ours, there

    def _enter_new(self) -> bool:
        query = select(Asset).where(
            Asset.kind == "models", Asset.state == "Succeeded", Asset.mlflow_version.is_(None),
            Asset.content_hash.is_not(None),
        )
        with self._context.database.read() as session:
            rows = list(session.scalars(query.order_by(Asset.id).limit(ENTERED_MAX)))
        for row in rows:
            number = self._number(self._store.client(), row)
            self._context.checkpoint("mlflow.version:made")
            with self._context.database.write() as session:
                kept = session.get(Asset, row.id)
                if kept is not None and kept.content_hash == row.content_hash:
                    kept.mlflow_version = number
        return bool(rows)

    def _number(self, client: MlflowClient, row: Asset) -> str:
        """Return MLflow's version of ours: the one with its tags, else a new one."""
        wanted = f"name = '{row.name}' and tags.`{VERSION_TAG}` = '{row.version}'"
        for found in client.search_model_versions(wanted, max_results=PAGE):
            if found.tags.get(HASH_TAG) == row.content_hash:
                return str(found.version)
        _make_name(client, row.name)
        source, run = self._source(client, row)
        made = client.create_model_version(
            row.name, source, run, tags=_tags(row), description=row.properties.get("description"),
        )
        return str(made.version)

    def _source(self, client: MlflowClient, row: Asset) -> tuple[str, str | None]:
        """Return where MLflow finds the content: the snapshot, or what a server was sent of it."""
        path = Path(str(row.path))
        if self._store.artifacts is not None:
            return path.as_uri(), None
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT)
        run = client.create_run(experiment, run_name=f"{row.name}-{row.version}", tags=_tags(row))
        if path.is_dir():
            client.log_artifacts(run.info.run_id, str(path), path.name)
        else:
            client.log_artifact(run.info.run_id, str(path))
        client.set_terminated(run.info.run_id)
        return f"{run.info.artifact_uri}/{path.name}", str(run.info.run_id)

    # -- theirs, here

    def _may_have_changed(self) -> bool:
        if self._store.artifacts is None:
            last_s = self._read_s
            return last_s is None or time.monotonic() - last_s >= ASK_S
        try:
            return os.stat(urlsplit(self._store.uri).path).st_mtime_ns != self._seen
        except FileNotFoundError:   # nobody has used it yet
            return False

    def _read(self, client: MlflowClient) -> None:
        self._read_s = time.monotonic()
        if self._store.artifacts is not None:
            self._seen = os.stat(urlsplit(self._store.uri).path).st_mtime_ns
        versions = {(one.name, str(one.version)): one for one in _versions(client)}
        labels = _labels(client)
        with self._context.database.write() as session:
            rows = list(session.scalars(select(Asset).where(Asset.kind == "models")))
            pointers = {(row.name, row.mlflow_version): row for row in rows}
            ours = {(row.name, row.version): row for row in rows}
            notices: dict[int, str] = {}
            for key, found in versions.items():
                if key not in pointers and VERSION_TAG not in found.tags:
                    self._take_over(
                        session, found, ours.get(key), notices, labels.get(key, [])
                    )
                    self._seen = None   # it is tagged once it is here
            for row in rows:
                if row.mlflow_version is None:
                    continue
                there = versions.get((row.name, row.mlflow_version))
                said = _disagreement(row, there) or notices.get(row.id)
                if said != row.mlflow_notice:
                    row.mlflow_notice = said
                    if said is not None:
                        log.warning("model %s version %s: %s", row.name, row.version, said)
                names = labels.get((row.name, row.mlflow_version), [])
                if names != row.labels:
                    row.labels = names
        if any(row.state == "Creating" and row.mlflow_version is not None for row in rows):
            self._seen = None
        for row in rows:
            there = versions.get((row.name, str(row.mlflow_version)))
            if there is not None and row.content_hash and VERSION_TAG not in there.tags:
                for tag, value in _tags(row).items():   # taken over, and read since
                    client.set_model_version_tag(row.name, str(row.mlflow_version), tag, value)
        self._context.wake.set()

    def _take_over(
        self, session: Session, found: ModelVersion, row: Asset | None, notices: dict[int, str],
        labels: list[str],
    ) -> None:
        """Add what was made in MLflow; content of the workspace's own store is copied at once."""
        number = str(found.version)
        if row is not None:
            notices[row.id] = (
                f"MLflow's version {number} of {found.name} is another model, and cannot appear "
                f"here under its number: register models:/{found.name}/{number} under another one"
            )
        elif NAME.fullmatch(found.name):
            uri = f"models:/{found.name}/{number}"
            row = Asset(
                kind="models", name=found.name, version=number, state="Succeeded",
                mlflow_version=number, labels=labels, properties={
                    "modelType": "custom_model", "modelUri": uri, "flavors": {}, "properties": {},
                    "tags": dict(found.tags), "description": found.description or None,
                    "isAnonymous": False, "isArchived": False,
                },
            )
            session.add(row)
            session.flush()
            if self._store.artifacts is not None:
                _fetch(session, row)


def _fetch(session: Session, row: Asset) -> None:
    row.path, row.state = row.properties["modelUri"], "Creating"
    target = f"models/{row.name}/versions/{row.version}"
    begin(session, "asset.put", target, {"asset": row.id, "is_taken_over": True})


def _make_name(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _tags(row: Asset) -> dict[str, str]:
    return {VERSION_TAG: row.version, HASH_TAG: str(row.content_hash)}


def _disagreement(row: Asset, there: ModelVersion | None) -> str | None:
    if there is None:
        return f"its version {row.mlflow_version} in MLflow was deleted; it goes on here as it is"
    for tag, value in _tags(row).items():
        said = there.tags.get(tag, value)
        if said != value and row.content_hash is not None:
            return (
                f"its version {row.mlflow_version} in MLflow is tagged {tag} = {said[:100]}, and "
                f"here it is {value}; it goes on here as it is"
            )
    return None


def _versions(client: MlflowClient) -> Iterator[ModelVersion]:
    page, token = [], None
    for _ in range(VERSIONS_MAX // PAGE):
        page = client.search_model_versions(max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
    log.warning("MLflow's registry has more than %s versions; the rest is left out", VERSIONS_MAX)


def _labels(client: MlflowClient) -> dict[tuple[str, str], list[str]]:
    """Return the aliases of each version."""
    found: dict[tuple[str, str], list[str]] = {}
    token: Any = None
    for _ in range(VERSIONS_MAX // PAGE):
        page = client.search_registered_models(max_results=PAGE, page_token=token)
        for model in page:
            for alias, number in sorted(model.aliases.items()):
                found.setdefault((model.name, str(number)), []).append(alias)
        token = page.token
        if not token:
            break
    return found
