"""The environment of a deployment: what of its declaration is built, and what is said of the rest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from inferay.control import assets
from inferay.control.tables import Asset
from inferay.engine.resources import CommonDeployment, Environment, from_rest, parse_reference
from inferay.engine.scoring.environments import EnvironmentSpec, from_conda, of_mlflow_model
from inferay.errors import InvalidInput

#: Registries whose environments are images that Microsoft curates.
CURATED = re.compile(r"^AzureML-|^acft-", re.IGNORECASE)

#: A deployment's property: go on without what only its image holds.
IGNORE_IMAGE = "inferay.ignore_image"


def environment_of(session: Session, entity: CommonDeployment) -> Asset | None:
    """Return the registered environment that a deployment names; None for a curated one or none.

    Raises:
        NotFound: It does not exist.
    """
    if not isinstance(entity.environment, str):
        return None
    reference = parse_reference(entity.environment)
    if reference.registry is not None or CURATED.match(reference.name):
        return None
    return assets.find(session, "environments", entity.environment)


def resolve_environment(
    session: Session, entity: CommonDeployment, *, mlflow_model: str = ""
) -> tuple[EnvironmentSpec | None, list[str]]:
    """Return what a deployment's processes run in, and what its author should know.

    Args:
        session: The caller's transaction.
        entity: The deployment.
        mlflow_model: Folder of a model that is scored without code: where the deployment names no
            environment, what MLflow noted of the model is its environment.

    Raises:
        NotFound: The environment does not exist.
        InvalidInput: It cannot be had here.
    """
    row = environment_of(session, entity)
    if row is not None:
        return spec_of(row, properties=entity.properties)
    notices = []
    if entity.environment is not None:
        notices.append(
            f"environment '{entity.environment}' is curated by Azure and is not built here; the "
            "packages that are installed with inferay are used"
        )
    elif mlflow_model:
        found = of_mlflow_model(Path(mlflow_model))
        return found if found.requirements else None, notices
    return None, notices


def spec_of(
    row: Asset, *, properties: dict[str, str] | None = None
) -> tuple[EnvironmentSpec | None, list[str]]:
    """Return what of a registered environment is built, and what is said of the rest.

    Raises:
        InvalidInput: Nothing of it can be, or it declares what cannot be had.
    """
    where = f"environment {row.name} version {row.version}"
    entity = from_rest(Environment, row.name, {"properties": row.properties})
    found = None if entity.conda_file is None else from_conda(entity.conda_file, where)
    what = f"image {entity.image}" if entity.build is None else "Dockerfile"
    if entity.image is None and entity.build is None:
        return found, []
    if found is not None:
        return found, [
            f"{where}: the {what} is not used; the packages of its conda file are installed beside "
            "the cluster's own"
        ]
    if (properties or {}).get(IGNORE_IMAGE) != "true":
        raise InvalidInput(
            f"{where} is the {what} alone, and images are not run here: what is in it cannot be "
            "had; give its packages as a conda_file, or go on without them: properties: "
            f'{{{IGNORE_IMAGE}: "true"}}',
            code="ImageNotRun", target="environment",
        )
    return None, [f"{where}: the {what} is not used ({IGNORE_IMAGE})"]


def hash_facts(row: Asset | None) -> dict[str, Any]:
    """Return what a job's hash of its environment is made of."""
    return {} if row is None else row.properties
