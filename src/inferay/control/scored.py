"""What scores for a deployment: its script, or its model alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from inferay.control import assets
from inferay.control.tables import Asset
from inferay.engine.resources import BatchDeployment, OnlineDeployment
from inferay.engine.scoring.flavors import check_model, flavor_of
from inferay.errors import InvalidInput, NotFound


@dataclass(frozen=True)
class Scored:
    """Registered content that a deployment is made of.

    Attributes:
        flavor: "" where the code scores, else the flavour of the model.
    """

    code: Asset | None
    model: Asset | None
    flavor: str

    @property
    def code_path(self) -> str:
        """The folder of the code, or ""."""
        return path_of(self.code)

    @property
    def model_path(self) -> str:
        """The file or folder of the model, or ""."""
        return path_of(self.model)

    @property
    def model_hash(self) -> str:
        """The hash of the model's content, or ""."""
        return (self.model.content_hash or "") if self.model is not None else ""


def scored_by(session: Session, entity: BatchDeployment | OnlineDeployment) -> Scored:
    """Return what scores for a deployment.

    Raises:
        InvalidInput: It has neither code nor a model that needs none.
        NotFound: What it names does not exist.
        Conflict: What it names is not ready.
    """
    given = entity.code_configuration
    code = assets.find(session, "codes", given.code) if given is not None else None
    model = assets.find(session, "models", entity.model) if isinstance(entity.model, str) else None
    kind = str(model.properties.get("modelType")) if model is not None else None
    flavor = flavor_of(kind, has_code=code is not None)
    if code is None and not flavor:
        what = "an online" if isinstance(entity, OnlineDeployment) else "a batch"
        raise InvalidInput(
            f"code_configuration: missing; {what} deployment needs a scoring script",
            target="/properties/codeConfiguration",
        )
    if flavor:
        check_model(flavor, Path(path_of(model)))
    return Scored(code, model, flavor)


def path_of(row: Asset | None) -> str:
    """Return where the content of an asset is, or "" where there is no asset.

    Raises:
        NotFound: It has no content.
    """
    if row is None:
        return ""
    if row.path is None:
        raise NotFound(f"{row.kind}/{row.name} version {row.version} has no content")
    return row.path
