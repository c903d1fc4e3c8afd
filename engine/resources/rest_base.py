"""What all REST bodies share: how names are read, how words and durations are spelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel

from inferay.engine.resources.base import Strict
from inferay.engine.resources.durations import format_duration, parse_duration
from inferay.engine.resources.fields import TIMEOUT_S_MAX, refusal
from inferay.engine.resources.wording import shown
from inferay.errors import InvalidInput

#: Azure's spelling of the entities' words.
WIRE_WORDS: Mapping[str, str] = {
    "aad_token": "AADToken",
    "aml_token": "AMLToken",
    "key": "Key",
    "managed": "Managed",
    "append_row": "AppendRow",
    "summary_only": "SummaryOnly",
    "info": "Info",
    "warning": "Warning",
    "debug": "Debug",
    "linux": "Linux",
    "local": "Local",
    "azure_blob": "AzureBlob",
    "s3": "S3",
    "amlcompute": "AmlCompute",
    "kubernetes": "Kubernetes",
    "dedicated": "Dedicated",
    "low_priority": "LowPriority",
}


@dataclass(frozen=True)
class Ids:
    """Ids that stand for what was uploaded or registered, and whether secrets are written."""

    model: str | None = None
    code: str | None = None
    environment: str | None = None
    show_secrets: bool = False


def filled(**values: object) -> dict[str, Any]:
    """Return the values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def _seconds(minimum: int) -> BeforeValidator:
    def check(value: object) -> int:
        try:
            seconds = parse_duration(value) if isinstance(value, str) else -1.0
        except InvalidInput:
            seconds = -1.0
        if minimum <= seconds <= TIMEOUT_S_MAX and seconds == int(seconds):
            return int(seconds)
        raise refusal(
            f"expected a duration of whole seconds from PT{minimum}S to P7D, got {shown(value)}"
        )

    return BeforeValidator(check)


_AS_DURATION = PlainSerializer(format_duration, return_type=str, when_used="json")

TimeoutDuration = Annotated[int, _seconds(1), _AS_DURATION]
IdleDuration = Annotated[int, _seconds(0), _AS_DURATION]


class Body(Strict):
    """Camel-case names, in any case; nulls count as left out."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    @classmethod
    def canonical(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data with the names as Azure writes them, without nulls and ignored ones."""
        known = {str(field.alias) for field in cls.model_fields.values()}
        by_lower = {name.lower(): name for name in known | cls.NO_EFFECT | cls.READ_ONLY}
        result: dict[str, Any] = {}
        for key, value in data.items():
            name = by_lower.get(key.lower(), key) if isinstance(key, str) else str(key)
            if name in result:
                raise refusal("given twice, in different case; expected it once", at=(name,))
            if value is not None:
                result[name] = value
        return super().canonical(result)


class Resource(Body):
    """The fields around `properties`, all of them a server's or without effect."""

    READ_ONLY: ClassVar[frozenset[str]] = frozenset({"id", "name", "type", "systemData", "etag"})
    NO_EFFECT: ClassVar[frozenset[str]] = frozenset({"location", "identity", "kind", "sku"})
