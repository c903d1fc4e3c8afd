"""What an online deployment declares, as the inference server and its replicas take it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from inferay.engine.resources import OnlineDeployment
from inferay.engine.resources import online as declared
from inferay.engine.resources.wording import shown
from inferay.engine.scoring.environments.declared import IGNORE_IMAGE
from inferay.engine.scoring.environments.spec import EnvironmentSpec
from inferay.errors import InvalidInput, nearest
from inferay.serve.replica_spec import Probe, ReplicaSpec, Scale
from inferay.serve.server.calls import Batching
from inferay.serve.server.limits import Limits
from inferay.serve.server.spec import ServerSpec

#: A deployment's properties: requests that one call of `run()` gets at most, and how long an
#: incomplete batch waits while another is scored.
BATCH_SIZE = "inferay.max_batch_size"
BATCH_WAIT = "inferay.batch_wait_ms"

#: A deployment's property that lets a GPU instance type run on CPUs.
ALLOW_CPU = "inferay.allow_cpu"

_DEPLOYMENT_PROPERTIES = (BATCH_SIZE, BATCH_WAIT, ALLOW_CPU, IGNORE_IMAGE)

#: An endpoint's property: whether a request that was sent to a replica that died is sent again.
RETRY_SENT = "inferay.retry_sent_requests"

#: An endpoint's properties: the tokens' `iss` and `aud`, and where the issuer's keys are.
ISSUER, AUDIENCE, KEYS = "inferay.token_issuer", "inferay.token_audience", "inferay.jwks_uri"
ISSUER_PROPERTIES = (ISSUER, AUDIENCE, KEYS)

#: A replica answers by itself when a request takes too long; the edge waits for that answer.
EDGE_MARGIN_S = 1.0

#: More requests of one call than this wait longer for each other than they gain.
BATCH_SIZE_MAX = 1024

#: As long as a request may wait at all.
BATCH_WAIT_MS_MAX = 180_000

#: Without a control plane a deployment has no version of its own.
FIRST_VERSION = "1"


def server_spec(
    deployment: OnlineDeployment, *, code_dir: str, model: str = "", name: str | None = None,
    version: str = FIRST_VERSION, prefix: str = "", flavor: str = "",
    environment: EnvironmentSpec | None = None,
) -> ServerSpec:
    """Return what the inference server is told.

    Args:
        deployment: With a code configuration, or a model that needs none.
        code_dir: The code folder on the machine that serves, or "".
        model: The model's file or folder there, or "".
        name: Of the service, in its Swagger documents; by default its deployment's.
        version: Of the service.
        prefix: The path above the server's routes, as clients see it.
        flavor: Of the model, where it is served without code.
        environment: What the server is to run in.

    Raises:
        InvalidInput: A property is wrong, or there is no code.
    """
    code = deployment.code_configuration
    if code is None and not flavor:
        raise InvalidInput(
            f"deployment '{deployment.name}': code_configuration: missing; a deployment needs a "
            "scoring script",
            target="code_configuration",
        )
    _check_known(deployment.properties, _DEPLOYMENT_PROPERTIES)
    batching = batching_of(deployment)
    if flavor and batching is not None:
        raise InvalidInput(
            f"properties: {BATCH_SIZE}: counts for a scoring script, and the model of deployment "
            f"'{deployment.name}' is served without one; leave it out",
            target="/properties/properties",
        )
    return ServerSpec(
        name=name or deployment.name, version=version, code_dir=code_dir,
        scoring_script=code.scoring_script if code is not None else "", flavor=flavor, model=model,
        model_dir=os.path.dirname(model),   # a folder keeps its name below it, as on Azure
        environment_variables=dict(deployment.environment_variables), environment=environment,
        packages=environment.names if environment is not None else (),
        limits=limits_of(deployment), batching=batching, prefix=prefix,
    )


def check_endpoint_properties(properties: Mapping[str, str]) -> None:
    """Check what is ours of an endpoint's properties.

    Raises:
        InvalidInput: One is misspelt, or is neither "true" nor "false".
    """
    _check_known(properties, (RETRY_SENT, *ISSUER_PROPERTIES))
    value = properties.get(RETRY_SENT, "false")
    if value not in ("true", "false"):
        raise InvalidInput(
            f'properties: {RETRY_SENT}: expected "true" or "false", got {shown(value)}',
            target="/properties/properties",
        )


def limits_of(deployment: OnlineDeployment) -> Limits:
    """Return how much an instance takes on at once."""
    settings = deployment.request_settings
    return Limits(
        concurrent_requests_max=settings.max_concurrent_requests_per_instance,
        queue_wait_s=settings.max_queue_wait_ms / 1e3,
        request_timeout_s=settings.request_timeout_ms / 1e3,
    )


def batching_of(deployment: OnlineDeployment) -> Batching | None:
    """Return how requests are gathered, or None where each has a call of its own.

    Raises:
        InvalidInput: A property is no number, or out of bounds.
    """
    size = _number(deployment, BATCH_SIZE, default=1, least=1, most=BATCH_SIZE_MAX)
    wait_ms = _number(deployment, BATCH_WAIT, default=0, least=0, most=BATCH_WAIT_MS_MAX)
    return Batching(size, wait_ms / 1e3) if size > 1 else None


def probe_of(probe: declared.Probe) -> Probe:
    """Return a probe as a replica takes it."""
    return Probe(
        initial_delay_s=probe.initial_delay, period_s=probe.period, timeout_s=probe.timeout,
        success_threshold=probe.success_threshold, failure_threshold=probe.failure_threshold,
    )


def route_timeout_s(spec: ReplicaSpec) -> float:
    """Return after how long the edge gives up on a replica."""
    limits = spec.server.limits
    return limits.request_timeout_s + limits.queue_wait_s + EDGE_MARGIN_S


def scale_of(deployment: OnlineDeployment) -> Scale | None:
    """Return how the number of replicas follows their load, or None for a fixed one."""
    settings = deployment.scale_settings
    if settings.type == "default":
        return None
    return Scale(
        settings.min_instances, settings.max_instances,
        settings.target_utilization_percentage, settings.polling_interval,
    )


def _check_known(properties: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuse a misspelt property of ours: it would do nothing."""
    for name in properties:
        if name.startswith("inferay.") and name not in known:
            raise InvalidInput(
                f"properties: unknown property '{name[:100]}'{nearest(name, known)}",
                target="/properties/properties",
            )


def _number(
    deployment: OnlineDeployment, name: str, *, default: int, least: int, most: int
) -> int:
    text = deployment.properties.get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not is_number or not least <= int(text) <= most:
        raise InvalidInput(
            f"properties: {name}: expected a whole number from {least} to {most}, got "
            f"'{text[:100]}'",
            target=name,
        )
    return int(text)
