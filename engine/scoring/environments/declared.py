"""What of a declared environment is built here, and what its author is told of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from inferay.engine.resources import CommonDeployment, Environment
from inferay.engine.scoring.environments.overlay import check_python
from inferay.engine.scoring.environments.spec import (
    EnvironmentSpec,
    from_conda,
    of_mlflow_model,
)
from inferay.errors import InvalidInput

#: A deployment's property: go on without what only the image of its environment holds.
IGNORE_IMAGE = "inferay.ignore_image"


def declared_spec(
    environment: Environment, where: str, properties: Mapping[str, str]
) -> tuple[EnvironmentSpec | None, list[str]]:
    """Return what is built, None for nothing, and notices, a line each.

    Args:
        environment: As it was declared.
        where: Says in messages whose it is.
        properties: Of the deployment that names it.

    Raises:
        InvalidInput: It declares what cannot be had, or an image alone.
    """
    found = None
    if environment.conda_file is not None:
        found = from_conda(environment.conda_file, where)
        check_python(found.python)
    if environment.image is None and environment.build is None:
        return found, []
    what = "Dockerfile" if environment.image is None else f"image {environment.image}"
    if found is not None:
        return found, [
            f"{where}: the {what} is not run; the packages of its conda file are installed beside "
            "the cluster's own"
        ]
    if properties.get(IGNORE_IMAGE) != "true":
        raise InvalidInput(
            f"{where} is the {what} alone, and images are not run here; give what is in it as a "
            f'conda_file, or go on without: properties: {{{IGNORE_IMAGE}: "true"}}',
            code="ImageNotRun", target="environment",
        )
    return None, [f"{where}: the {what} is not run, as {IGNORE_IMAGE} allows"]


def inline_spec(
    deployment: CommonDeployment, *, mlflow_model: Path | None = None
) -> tuple[EnvironmentSpec | None, list[str]]:
    """Return what is built for a deployment that no control plane resolves, and notices.

    Args:
        deployment: With its environment inline; one that it names by reference is not known.
        mlflow_model: Folder of a model that is scored without code: what MLflow noted of it is its
            environment, unless the deployment has another.

    Raises:
        InvalidInput: The environment cannot be had here.
    """
    if isinstance(deployment.environment, Environment):
        where = f"environment of deployment '{deployment.name}'"
        return declared_spec(deployment.environment, where, deployment.properties)
    if deployment.environment is not None:
        return None, [
            f"environment '{deployment.environment}' is registered, which takes a control plane; "
            "the packages that are installed with inferay are used"
        ]
    noted = of_mlflow_model(mlflow_model) if mlflow_model is not None else None
    return (noted if noted and noted.requirements else None), []
