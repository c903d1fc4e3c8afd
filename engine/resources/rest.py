"""Entities as REST bodies and back, with Azure's names.

to_rest(entity)             what a client PUTs
parse_body(cls, data)       what a server reads, or answers 400 with
from_rest(cls, name, body)  the entity, with what the server said of it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from inferay.engine.resources import (
    rest_bodies,
    rest_convert,
    rest_infrastructure,
    rest_online,
)
from inferay.engine.resources.assets import Asset, Code, Data, Environment, Model
from inferay.engine.resources.base import Entity
from inferay.engine.resources.deployments import BatchDeployment, CommonDeployment
from inferay.engine.resources.endpoints import BatchEndpoint
from inferay.engine.resources.facts import CreationContext, ServerFacts
from inferay.engine.resources.infrastructure import Compute, Datastore
from inferay.engine.resources.online import OnlineDeployment, OnlineEndpoint
from inferay.engine.resources.problems import and_more, problems
from inferay.engine.resources.rest_base import Body, Ids
from inferay.engine.resources.wording import dotted, json_pointer, shown
from inferay.errors import InvalidInput

B = TypeVar("B", bound=BaseModel)
E = TypeVar("E", bound=Entity)


@dataclass(frozen=True)
class _Wire:
    """How one kind of entity travels."""

    body: type[Body]
    write: Callable[[Any, Ids], dict[str, Any]]
    read: Callable[[Any], dict[str, Any]]


_WIRES: Mapping[type[Entity], _Wire] = {
    BatchEndpoint: _Wire(
        rest_bodies.BatchEndpointBody,
        rest_convert.write_batch_endpoint,
        rest_convert.read_batch_endpoint,
    ),
    BatchDeployment: _Wire(
        rest_bodies.BatchDeploymentBody,
        rest_convert.write_batch_deployment,
        rest_convert.read_batch_deployment,
    ),
    OnlineEndpoint: _Wire(
        rest_online.OnlineEndpointBody,
        rest_online.write_online_endpoint,
        rest_online.read_online_endpoint,
    ),
    OnlineDeployment: _Wire(
        rest_online.OnlineDeploymentBody,
        rest_online.write_online_deployment,
        rest_online.read_online_deployment,
    ),
    Model: _Wire(rest_bodies.ModelVersionBody, rest_convert.write_model, rest_convert.read_model),
    Data: _Wire(rest_bodies.DataVersionBody, rest_convert.write_data, rest_convert.read_data),
    Code: _Wire(rest_bodies.CodeVersionBody, rest_convert.write_code, rest_convert.read_code),
    Environment: _Wire(
        rest_bodies.EnvironmentVersionBody,
        rest_convert.write_environment,
        rest_convert.read_environment,
    ),
    Datastore: _Wire(
        rest_infrastructure.DatastoreBody,
        rest_infrastructure.write_datastore,
        rest_infrastructure.read_datastore,
    ),
    Compute: _Wire(
        rest_infrastructure.ComputeBody,
        rest_infrastructure.write_compute,
        rest_infrastructure.read_compute,
    ),
}


def to_rest(
    entity: Entity,
    *,
    model_id: str | None = None,
    code_id: str | None = None,
    environment_id: str | None = None,
    show_secrets: bool = False,
) -> dict[str, object]:
    """Return the body for a PUT: `tags` and `properties`; the name stands in the URL.

    Args:
        entity: What to send.
        model_id: Stands for a deployment's model; needed where that is inline.
        code_id: Stands for a deployment's code; needed where that is local.
        environment_id: Stands for a deployment's environment; needed where that is inline.
        show_secrets: Write a datastore's secrets (a client that creates it must).

    Raises:
        InvalidInput: Something local has no id yet.
    """
    ids = Ids(model_id, code_id, environment_id, show_secrets)
    return _WIRES[type(entity)].write(entity, ids)


def from_rest(
    cls: type[E],
    name: str,
    body: Mapping[str, Any],
    *,
    version: str | None = None,
    endpoint_name: str | None = None,
) -> E:
    """Return the entity that a body declares, with what the server says of it.

    Args:
        cls: The kind of entity.
        name: Its name; of an asset, the name without the version.
        body: What was PUT, or a server's answer.
        version: The version of an asset; taken from the body's `id` where left out.
        endpoint_name: The endpoint of a deployment; taken from the body's `id` where left out.

    Raises:
        InvalidInput: The body is wrong; `target` is a JSON pointer.
    """
    wire = _WIRES[cls]
    parsed = parse_body(wire.body, body)
    facts = server_facts(body)
    steps = _steps(facts.id)
    try:
        fields = {key: value for key, value in wire.read(parsed).items() if value is not None}
        fields["name"] = name
        if issubclass(cls, Asset):
            fields["version"] = version or steps.get("versions")
        elif issubclass(cls, CommonDeployment):
            in_id = steps.get("batchendpoints") or steps.get("onlineendpoints")
            fields["endpoint_name"] = endpoint_name or in_id
        entity = cls(**{key: value for key, value in fields.items() if value is not None})
    except InvalidInput as error:
        raise InvalidInput(f"properties: {error.message}", target="/properties") from None
    return entity.with_facts(facts)


def parse_body(cls: type[B], data: object) -> B:
    """Return the parsed body; for servers and for `BatchJobBody`.

    Raises:
        InvalidInput: The data is not such a body; one line for the first problem, its JSON
            pointer as `target`. Never pydantic's error.
    """
    if not isinstance(data, Mapping):
        raise InvalidInput(f"expected a JSON object, got {shown(data)}", target="")
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        found = sorted(problems(cls, error), key=lambda problem: problem.is_missing)
        path, reason = found[0].path, found[0].reason + and_more(found)
        field = f"{dotted(path)}: " if path else ""
        raise InvalidInput(f"{field}{reason}", target=json_pointer(path)) from None


def server_facts(body: Mapping[str, Any]) -> ServerFacts:
    """Return what a server's answer says of a resource; a PUT says nothing."""
    properties = body.get("properties")
    if not isinstance(properties, Mapping):
        properties = {}
    data = body.get("systemData")
    context = None
    if isinstance(data, Mapping):
        names = CreationContext.__dataclass_fields__
        context = CreationContext(**{name: _text(data.get(to_camel(name))) for name in names})
    error = properties.get("error")
    return ServerFacts(
        id=_text(body.get("id")),
        provisioning_state=_text(properties.get("provisioningState")),
        scoring_uri=_text(properties.get("scoringUri")),
        openapi_uri=_text(properties.get("swaggerUri")),
        creation_context=context,
        error=dict(error) if isinstance(error, Mapping) else None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _steps(resource_id: str | None) -> dict[str, str]:
    """Return the pairs of a resource id: {"models": "m", "versions": "3", …}."""
    steps = (resource_id or "").strip("/").split("/")
    return {kind.lower(): name for kind, name in zip(steps[::2], steps[1::2], strict=False)}
