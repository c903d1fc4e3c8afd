"""Endpoints as users declare them: what all share, and batch ones; `online` has the others."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from inferay.engine.resources.base import Entity, Strict
from inferay.engine.resources.fields import AuthMode, EndpointName, Name, Text, TextMap


class CommonEndpoint(Entity):
    """The fields that every kind of endpoint has."""

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset(
        {"identity", "location", "public_network_access", "resourceGroup", "resource_group"}
    )
    READ_ONLY: ClassVar[frozenset[str]] = frozenset(
        {
            "id", "provisioning_state", "scoring_uri", "openapi_uri", "creation_context", "kind",
            "type",
        }
    )  # fmt: skip

    name: EndpointName
    description: Text | None = None
    tags: TextMap = Field(default_factory=dict)
    properties: TextMap = Field(default_factory=dict)

    @property
    def scoring_uri(self) -> str | None:
        """Where the endpoint is invoked, as the server said."""
        return self._facts.scoring_uri

    @property
    def openapi_uri(self) -> str | None:
        """Where the endpoint describes itself, as the server said."""
        return self._facts.openapi_uri


class EndpointDefaults(Strict):
    """What an endpoint does where a request does not say."""

    deployment_name: Name | None = None


class BatchEndpoint(CommonEndpoint):
    """A stable name and URI for batch jobs over one or more deployments."""

    auth_mode: AuthMode = "aad_token"
    defaults: EndpointDefaults = Field(default_factory=EndpointDefaults)
