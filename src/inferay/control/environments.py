"""The environment of a deployment: what is registered, and what of it is built."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from inferay.control import assets
from inferay.control.context import Context
from inferay.control.operations import Steps, begin
from inferay.control.scored import Scored
from inferay.control.tables import Asset, Operation
from inferay.engine.batch.spec import hash_of
from inferay.engine.resources import (
    BatchDeployment,
    Environment,
    OnlineDeployment,
    from_rest,
    parse_reference,
)
from inferay.engine.scoring.environments import ensure
from inferay.engine.scoring.environments.declared import declared_spec
from inferay.engine.scoring.environments.spec import EnvironmentSpec, of_mlflow_model
from inferay.errors import InferayError

#: Registries whose environments are images that Microsoft curates.
CURATED = re.compile(r"^AzureML-|^acft-", re.IGNORECASE)


@dataclass(frozen=True)
class Surroundings:
    """What a deployment's processes run in.

    Attributes:
        row: The registered environment that the deployment names, if it does.
        spec: What is built; None for the cluster's own packages.
        notices: What the deployment's author should know.
    """

    row: Asset | None
    spec: EnvironmentSpec | None
    notices: list[str]

    @property
    def packages(self) -> tuple[str, ...]:
        """Names of the packages that it declares."""
        return self.spec.names if self.spec is not None else ()

    @property
    def hash(self) -> str:
        """Another one for another environment; "" for none."""
        if self.row is not None:
            return hash_of(self.row.properties)
        return self.spec.digest if self.spec is not None else ""


def surroundings(
    session: Session, entity: BatchDeployment | OnlineDeployment, scored: Scored
) -> Surroundings:
    """Return what a deployment's processes run in.

    What MLflow noted of a model is the environment of one that is scored without code, unless the
    deployment names another.

    Raises:
        NotFound: The environment does not exist.
        InvalidInput: It cannot be had here.
    """
    if not isinstance(entity.environment, str):
        noted = None
        if scored.flavor == "mlflow":
            noted = of_mlflow_model(Path(scored.model_path))
        return Surroundings(None, noted if noted and noted.requirements else None, [])
    reference = parse_reference(entity.environment)
    if reference.registry is not None or CURATED.match(reference.name):
        return Surroundings(None, None, [
            f"environment '{entity.environment}' is curated by Azure and is not built here; the "
            "packages that are installed with inferay are used"
        ])
    row = assets.find(session, "environments", entity.environment)
    spec, notices = declared_spec(entity_of(row), describe(row), entity.properties)
    return Surroundings(row, spec, notices)


def build_environment(context: Context, operation: Operation) -> None:
    """Build the environment that the payload names, if it names one; blocks.

    Raises:
        InvalidInput: It wants another Python.
        UserCodeError: It cannot be built; the details are the resolver's last lines.
    """
    if operation.payload.get("environment"):
        ensure(EnvironmentSpec.from_dict(operation.payload["environment"]))


def begin_build(session: Session, name: str, version: str | None) -> Operation:
    """Begin to build an environment ahead of time; that of an image alone is nothing to build.

    Raises:
        NotFound: There is no such environment.
        InvalidInput: It cannot be had here.
    """
    reference = f"azureml:{name}@latest" if version is None else f"azureml:{name}:{version}"
    row = assets.find(session, "environments", reference)
    spec, _ = declared_spec(entity_of(row), describe(row), {})
    target = f"environments/{row.name}/versions/{row.version}"
    return begin(
        session, "environment.build", target, {"environment": spec and spec.to_dict()}
    )


def add_steps(steps: Steps) -> None:
    """Say how an environment is built ahead of time."""
    steps.add("environment.build", [build_environment], _leave)


def _leave(session: Session, operation: Operation, error: InferayError) -> None:
    """Leave the environment as it was declared: the operation says what is wrong."""


def entity_of(row: Asset) -> Environment:
    """Return a registered environment as it was declared."""
    return from_rest(Environment, row.name, {"properties": row.properties})


def describe(row: Asset) -> str:
    """Return what messages call it."""
    return f"environment {row.name} version {row.version}"
