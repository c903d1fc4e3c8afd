"""`--set settings.x=…` of an invocation: a deployment's settings, for one job alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic.alias_generators import to_camel

from inferay.engine.resources import BatchDeployment, load, to_rest
from inferay.engine.resources.overrides import parse_override
from inferay.errors import InvalidInput

_ALLOWED = {"settings", "resources", "environment_variables"}
_RESOURCES = ("instance_count", "instance_type")


def job_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the REST properties that overrides such as `settings.mini_batch_size=5` stand for.

    Raises:
        InvalidInput: One names no setting, or has a wrong value.
    """
    if not overrides:
        return {}
    loaded = load(BatchDeployment, None, overrides, name="job")
    entity = loaded.entity
    others = entity.model_fields_set - _ALLOWED - {"name"}   # that one is ours, or an override's
    others |= {"name"} & {parse_override(one).path[0] for one in overrides}
    if others:
        raise InvalidInput(
            f"--set {min(others)}: only settings, instance_count, instance_type and "
            "environment_variables can be set for one job; update the deployment for the rest",
            target="--set",
        )
    if loaded.warnings:   # of what would be ignored
        raise InvalidInput(loaded.warnings[0].removesuffix("; ignored"), target="--set")
    wire: dict[str, Any] = to_rest(entity)["properties"]   # type: ignore[assignment]
    found = {to_camel(name): wire[to_camel(name)] for name in entity.settings.model_fields_set}
    if "retrySettings" in found:
        own = entity.settings.retry_settings.model_fields_set
        found["retrySettings"] = {to_camel(name): wire["retrySettings"][to_camel(name)]
                                  for name in own}
    if entity.environment_variables:
        found["environmentVariables"] = dict(entity.environment_variables)
    given = entity.resources.model_dump(include=set(_RESOURCES), exclude_unset=True)
    if given:
        found["resources"] = {to_camel(name): value for name, value in given.items()}
    return found
