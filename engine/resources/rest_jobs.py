"""The body of a batch invocation: Azure's fields, and ours in the same style.

Every setting that is left out is the deployment's.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from inferay.engine.resources.fields import (
    Concurrency,
    ErrorThreshold,
    FilledText,
    InstanceCount,
    JsonMap,
    LoggingLevel,
    MiniBatchSize,
    Name,
    OutputAction,
    OutputFileName,
    Retries,
    Split,
    Text,
    TextMap,
    Variables,
    choice,
    refusal,
    scalar_text,
)
from inferay.engine.resources.rest_base import Body, TimeoutDuration
from inferay.engine.resources.wording import shown

_INPUT_TYPES = ("UriFolder", "UriFile", "MLTable", "Literal", "CustomModel", "MLFlowModel")


class JobInput(Body):
    """One named input: data by `uri`, a literal by `value`."""

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"mode", "pathOnCompute", "description"})

    job_input_type: Annotated[
        Literal["UriFolder", "UriFile", "MLTable", "Literal", "CustomModel", "MLFlowModel"],
        BeforeValidator(choice(*_INPUT_TYPES)),
    ]
    uri: FilledText | None = None
    value: Annotated[str, BeforeValidator(scalar_text)] | None = None


class JobOutput(Body):
    """One named output, and where it shall go."""

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"mode", "description", "pathOnCompute"})

    job_output_type: Annotated[
        Literal["UriFolder", "UriFile"], BeforeValidator(choice("UriFolder", "UriFile"))
    ] = "UriFolder"
    uri: FilledText | None = None


class JobRetrySettings(Body):
    """Retries for this job alone; what is None is the deployment's. `timeout` is seconds."""

    max_retries: Retries | None = None
    timeout: TimeoutDuration | None = None


def _no_target(value: object) -> None:
    raise refusal(
        f"expected none, got {shown(value)}: a job runs on the compute of its deployment; name a "
        "deployment that has another one"
    )


class JobResources(Body):
    """Instances for this job alone."""

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"isLocal", "location", "locations"})

    target: Annotated[None, BeforeValidator(_no_target)] = None
    instance_count: InstanceCount | None = None
    instance_type: FilledText | None = None
    properties: JsonMap = Field(default_factory=dict)


class BatchJobProperties(Body):
    """`properties` of a batch invocation. None means: as the deployment has it.

    Attributes:
        name: The job's name, if the caller chose one.
        retry_settings: The time-out in whole seconds.
    """

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"partitionKeys", "identity"})

    input_data: dict[FilledText, JobInput] = Field(default_factory=dict)
    output_data: dict[FilledText, JobOutput] = Field(default_factory=dict)
    mini_batch_size: MiniBatchSize | None = None
    split: Split | None = None
    error_threshold: ErrorThreshold | None = None
    retry_settings: JobRetrySettings | None = None
    output_file_name: OutputFileName | None = None
    name: Name | None = None
    description: Text | None = None
    compute: JobResources | None = None
    resources: JobResources | None = None
    properties: TextMap = Field(default_factory=dict)
    tags: TextMap = Field(default_factory=dict)
    max_concurrency_per_instance: Concurrency | None = None
    logging_level: LoggingLevel | None = None
    output_action: OutputAction | None = None
    environment_variables: Variables = Field(default_factory=dict)

    @property
    def instance_count(self) -> int | None:
        """The instances asked for."""
        return next((one.instance_count for one in self._places if one.instance_count), None)

    @property
    def instance_type(self) -> str | None:
        """The type of instances asked for."""
        return next((one.instance_type for one in self._places if one.instance_type), None)

    @property
    def _places(self) -> list[JobResources]:
        """Where instances stand: in `resources`, or (Azure's older place) in `compute`."""
        return [one for one in (self.resources, self.compute) if one is not None]

    def to_json(self) -> dict[str, Any]:
        """Return what was asked for, in one form however it was written; it can be parsed again.

        Azure's names, and nothing that says no more than its absence.
        """
        found = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        resources = {**found.pop("compute", {}), **found.pop("resources", {})}
        return {**found, "resources": resources} if resources else found


class BatchJobBody(Body):
    """A batch invocation."""

    properties: BatchJobProperties


class RedriveBody(Body):
    """A redrive of a job.

    Attributes:
        merge: Whether the output is the old job's with the failed items, or these alone.
        deployment_name: The deployment whose code scores them; by default the old job's.
        properties: What differs from the old job's invocation.
    """

    merge: bool = False
    deployment_name: Name | None = None
    properties: BatchJobProperties = Field(default_factory=BatchJobProperties)
