"""`--set settings.x=…` of an invocation: a deployment's settings, for one job alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic.alias_generators import to_camel

from inferay.engine.resources import BatchDeployment, load, to_rest
from inferay.errors import InvalidInput

_ALLOWED = {"name", "type", "settings", "resources", "environment_variables"}


def job_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the REST properties that overrides such as `settings.mini_batch_size=5` stand for.

    Raises:
        InvalidInput: One names no setting, or has a wrong value.
    """
    if not overrides:
        return {}
    entity = load(BatchDeployment, None, overrides, name="job").entity
    others = entity.model_fields_set - _ALLOWED
    if others:
        raise InvalidInput(
            f"--set {min(others)}: only settings, instance_count and environment_variables can be "
            "set for one job; update the deployment for the rest",
            target="--set",
        )
    wire: dict[str, Any] = to_rest(entity)["properties"]   # type: ignore[assignment]
    found = {to_camel(name): wire[to_camel(name)] for name in entity.settings.model_fields_set}
    if "retrySettings" in found:
        own = entity.settings.retry_settings.model_fields_set
        found["retrySettings"] = {to_camel(name): wire["retrySettings"][to_camel(name)]
                                  for name in own}
    if entity.environment_variables:
        found["environmentVariables"] = dict(entity.environment_variables)
    if "instance_count" in entity.resources.model_fields_set:
        found["resources"] = {"instanceCount": entity.resources.instance_count}
    return found
