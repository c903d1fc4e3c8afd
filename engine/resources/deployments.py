"""Deployments as users declare them: what all share, and batch ones; `online` has the others.

A batch deployment may be written in two forms: with its settings under `settings:` (Azure's
`type: model`), or flat, as before. Both become the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from inferay.engine.resources.assets import Environment, Model
from inferay.engine.resources.base import Entity, Strict
from inferay.engine.resources.fields import (
    ComputeReference,
    Concurrency,
    EndpointName,
    EnvironmentReference,
    ErrorThreshold,
    FilledText,
    InnerPath,
    InstanceCount,
    JsonMap,
    LoggingLevel,
    MiniBatchSize,
    ModelReference,
    Name,
    OutputAction,
    OutputFileName,
    Retries,
    Split,
    Text,
    TextMap,
    TimeoutSeconds,
    Variables,
    choice,
    refusal,
)
from inferay.engine.resources.wording import FieldPath

PIPELINE_REFUSAL = (
    "pipeline component deployments are not supported; expected type: model "
    "(deploy each scoring step as a deployment of its own)"
)
_PIPELINE_FIELDS = ("component", "job_definition")


def _inline_or_reference(value: object) -> str:
    return "<inline>" if isinstance(value, Mapping | Entity) else "<reference>"


InlineModel = Annotated[
    Annotated[Model, Tag("<inline>")] | Annotated[ModelReference, Tag("<reference>")],
    Discriminator(_inline_or_reference),
]
InlineEnvironment = Annotated[
    Annotated[Environment, Tag("<inline>")] | Annotated[EnvironmentReference, Tag("<reference>")],
    Discriminator(_inline_or_reference),
]


class CodeConfiguration(Strict):
    """A folder of scoring code and the script in it that has `init()` and `run()`.

    Attributes:
        code: A local path, or a reference to uploaded code.
        scoring_script: Relative to `code`.
    """

    code: FilledText
    scoring_script: InnerPath


class CommonDeployment(Entity):
    """The fields that every kind of deployment has."""

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset(
        {
            "app_insights_enabled", "egress_public_network_access", "identity", "kind", "location",
            "private_network_connection", "resourceGroup", "resource_group",
        }
    )  # fmt: skip
    READ_ONLY: ClassVar[frozenset[str]] = frozenset(
        {"id", "provisioning_state", "creation_context", "error"}
    )

    name: Name
    endpoint_name: EndpointName | None = None
    description: Text | None = None
    tags: TextMap = Field(default_factory=dict)
    properties: TextMap = Field(default_factory=dict)
    model: InlineModel | None = None
    code_configuration: CodeConfiguration | None = None
    environment: InlineEnvironment | None = None
    environment_variables: Variables = Field(default_factory=dict)

    @property
    def error(self) -> Mapping[str, Any] | None:
        """Azure's error object of a deployment that failed, as the server said."""
        return self._facts.error


class RetrySettings(Strict):
    """How often a mini-batch is tried again, and how long one attempt may take.

    Attributes:
        timeout: Seconds for one attempt.
    """

    max_retries: Retries = 3
    timeout: TimeoutSeconds = 30


class Resources(Strict):
    """How many instances of which type a job gets."""

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset(
        {"docker_args", "shm_size", "locations", "location", "max_instance_count"}
    )
    INERT: ClassVar[frozenset[str]] = frozenset({"properties"})

    instance_count: InstanceCount = 1
    instance_type: FilledText | None = None
    properties: JsonMap = Field(default_factory=dict)


class BatchSettings(Strict):
    """How a batch job cuts, runs and writes.

    Attributes:
        mini_batch_size: Files of one call of `run()`, or bytes ("64MB") or rows ("5000 rows").
        split: Whether large files are cut by rows; `auto`: if `run()` declares that it takes a
            table.
        max_concurrency_per_instance: Workers on one instance.
        error_threshold: Failed items above which the job fails; -1 for never.
    """

    mini_batch_size: MiniBatchSize = 10
    split: Split = "auto"
    max_concurrency_per_instance: Concurrency = 1
    output_action: OutputAction = "append_row"
    output_file_name: OutputFileName = "predictions.csv"
    retry_settings: RetrySettings = Field(default_factory=RetrySettings)
    error_threshold: ErrorThreshold = -1
    logging_level: LoggingLevel = "info"


_FLAT_SETTINGS: Mapping[FieldPath, FieldPath] = {
    (name,): ("settings", name)
    for name in (
        "mini_batch_size", "split", "max_concurrency_per_instance", "output_action",
        "output_file_name", "retry_settings", "error_threshold", "logging_level",
    )
}  # fmt: skip


class BatchDeployment(CommonDeployment):
    """A model, its code, environment and resources, as batch jobs run it."""

    NO_EFFECT: ClassVar[frozenset[str]] = CommonDeployment.NO_EFFECT | {"tier"}
    MOVED: ClassVar[Mapping[FieldPath, FieldPath]] = {
        **_FLAT_SETTINGS,
        ("instance_count",): ("resources", "instance_count"),
        ("settings", "instance_count"): ("resources", "instance_count"),
        ("settings", "environment_variables"): ("environment_variables",),
    }

    type: Annotated[Literal["model"], BeforeValidator(choice("model"))] = "model"
    compute: ComputeReference | None = None
    resources: Resources = Field(default_factory=Resources)
    settings: BatchSettings = Field(default_factory=BatchSettings)

    @classmethod
    def refuse_kind(cls, data: Mapping[str, Any]) -> None:
        """Refuse a pipeline component deployment."""
        kind = data.get("type")
        if isinstance(kind, str) and kind.lower() == "pipeline":
            raise refusal(PIPELINE_REFUSAL, at=("type",))
        for name in _PIPELINE_FIELDS:
            if name in data:
                raise refusal(PIPELINE_REFUSAL, at=(name,))
