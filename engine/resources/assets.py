"""Models, data, environments and code as users declare them.

A path may be local or a URI; making local ones absolute and looking whether they are there is
`local_paths`' work. A name may be missing: an asset inside a deployment needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from inferay.engine.resources.base import Entity, Strict
from inferay.engine.resources.fields import (
    DataType,
    FilledText,
    InnerPath,
    JsonMap,
    ModelType,
    Name,
    Port,
    Text,
    TextMap,
    Version,
    choice,
    plain_data,
    refusal,
)
from inferay.engine.resources.wording import shown

_ASSET_READ_ONLY = frozenset(
    {"id", "provisioning_state", "creation_context", "creation_time", "latest_version"}
)
_ASSET_NO_EFFECT = frozenset({"resourceGroup", "resource_group", "location", "stage"})


class Asset(Entity):
    """The fields that every versioned asset has.

    Attributes:
        version: The next free number where it is left out.
    """

    NO_EFFECT: ClassVar[frozenset[str]] = _ASSET_NO_EFFECT
    READ_ONLY: ClassVar[frozenset[str]] = _ASSET_READ_ONLY

    name: Name | None = None
    version: Version | None = None
    description: Text | None = None
    tags: TextMap = Field(default_factory=dict)
    properties: TextMap = Field(default_factory=dict)


class Model(Asset):
    """A file or folder that a scoring script, MLflow or Triton loads.

    Attributes:
        path: A local path or a URI.
        flavors: MLflow's flavours, as its MLmodel file has them.
    """

    READ_ONLY: ClassVar[frozenset[str]] = _ASSET_READ_ONLY | {"job_name", "utc_time_created"}

    path: FilledText
    type: ModelType = "custom_model"
    flavors: dict[str, JsonMap] = Field(default_factory=dict)


class Data(Asset):
    """A named file, folder or table."""

    NO_EFFECT: ClassVar[frozenset[str]] = _ASSET_NO_EFFECT | {"auto_delete_setting"}

    path: FilledText
    type: DataType = "uri_folder"


class Code(Asset):
    """A folder of scoring code that was uploaded."""

    path: FilledText


class BuildContext(Strict):
    """A folder with a Dockerfile."""

    path: FilledText
    dockerfile_path: InnerPath = "Dockerfile"


class Route(Strict):
    """Where a container of the user's own answers."""

    path: FilledText
    port: Port


class InferenceConfig(Strict):
    """The routes of a container of the user's own."""

    liveness_route: Route | None = None
    readiness_route: Route | None = None
    scoring_route: Route | None = None
    startup_route: Route | None = None


def _conda_file(value: object) -> object:
    if isinstance(value, Mapping):
        return plain_data(value)
    if isinstance(value, str) and value.strip():
        return value
    raise refusal(f"expected a path or fields (name, channels, dependencies), got {shown(value)}")


class Environment(Asset):
    """An image, a conda file or a build context that user code runs in.

    Attributes:
        conda_file: After loading, the content; before, a path or the content.
    """

    NO_EFFECT: ClassVar[frozenset[str]] = _ASSET_NO_EFFECT | {"datastore", "auto_rebuild"}
    READ_ONLY: ClassVar[frozenset[str]] = _ASSET_READ_ONLY | {"environment_type"}

    image: FilledText | None = None
    conda_file: Annotated[str | dict[str, Any], BeforeValidator(_conda_file)] | None = None
    build: BuildContext | None = None
    inference_config: InferenceConfig | None = None
    os_type: Annotated[Literal["linux"], BeforeValidator(choice("linux"))] = "linux"

    @model_validator(mode="after")
    def _has_one_source(self) -> Environment:
        if self.image is None and self.conda_file is None and self.build is None:
            raise refusal("expected at least one of image, conda_file and build")
        if self.build is not None and (self.image is not None or self.conda_file is not None):
            raise refusal("expected build alone, or image and conda_file; got both", at=("build",))
        return self
