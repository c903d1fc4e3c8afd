"""What only a server knows of a resource: ids, states, times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class CreationContext:
    """Who made and last changed a resource, and when (ISO 8601, UTC)."""

    created_at: str | None = None
    created_by: str | None = None
    created_by_type: str | None = None
    last_modified_at: str | None = None
    last_modified_by: str | None = None
    last_modified_by_type: str | None = None


@dataclass(frozen=True)
class ServerFacts:
    """What only a server knows of a resource; all None for one that was never sent.

    Attributes:
        id: The resource id.
        provisioning_state: `Creating`, `Succeeded`, `Failed` and so on.
        scoring_uri: Where an endpoint is invoked.
        openapi_uri: Where an endpoint describes itself.
        creation_context: Who and when.
        error: Azure's error object (code, message, …) of a deployment that failed.
    """

    id: str | None = None
    provisioning_state: str | None = None
    scoring_uri: str | None = None
    openapi_uri: str | None = None
    creation_context: CreationContext | None = None
    error: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the facts that are known, as plain data."""
        known = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.creation_context is not None:
            context = asdict(self.creation_context)
            known["creation_context"] = {key: value for key, value in context.items() if value}
        return {key: value for key, value in known.items() if value is not None}
