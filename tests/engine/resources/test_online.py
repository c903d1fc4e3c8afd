"""Online endpoints and deployments: what a YAML file means, and the bodies of Azure's SDK."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.resources import (
    OnlineDeployment,
    OnlineEndpoint,
    Probe,
    RequestSettings,
    ScaleSettings,
    from_rest,
    load,
    to_rest,
)
from inferay.errors import InvalidInput
from tests.engine.resources.test_samples import SAMPLES

WORKSPACE = (
    "/subscriptions/s/resourceGroups/r/providers/Microsoft.MachineLearningServices/workspaces/w"
)


def test_defaults_are_azures() -> None:
    deployment = OnlineDeployment(name="blue")
    assert deployment.request_settings.model_dump() == {
        "request_timeout_ms": 5000, "max_concurrent_requests_per_instance": 1,
        "max_queue_wait_ms": 500,
    }
    assert deployment.liveness_probe.model_dump() == {
        "initial_delay": 10, "period": 10, "timeout": 2, "success_threshold": 1,
        "failure_threshold": 30,
    }
    assert deployment.scale_settings.type == "default"
    assert OnlineEndpoint(name="abc").auth_mode == "key"


def test_a_deployment_is_read_as_azure_reads_it() -> None:
    loaded = load(OnlineDeployment, SAMPLES / "online-deployment.yml")
    entity = loaded.entity
    assert loaded.warnings == []
    assert (entity.instance_count, entity.instance_type) == (2, "Standard_DS3_v2")
    assert entity.request_settings.max_concurrent_requests_per_instance == 4
    assert entity.scale_settings.target_utilization_percentage == 60
    assert (entity.liveness_probe.initial_delay, entity.liveness_probe.timeout) == (20, 2)
    assert entity.environment_variables == {"WORKERS": "010"}
    assert entity.properties == {"inferay.max_batch_size": "8"}


def test_an_endpoint_is_read_as_azure_reads_it() -> None:
    entity = load(OnlineEndpoint, SAMPLES / "online-endpoint.yml").entity
    assert entity.traffic == {"blue": 90, "green": 10}
    assert entity.mirror_traffic == {"green": 25}
    assert entity.tags == {"version": "1.10"}


@pytest.mark.parametrize("traffic", [{}, {"blue": 0}, {"blue": 100}, {"blue": 99, "green": 1}])
def test_traffic_is_all_or_nothing(traffic: dict[str, int]) -> None:
    assert OnlineEndpoint(name="abc", traffic=traffic).traffic == traffic


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"traffic": {"blue": 90}},
         "traffic: expected percentages that are 100 or 0 in sum, got 90"),
        ({"traffic": {"blue": 90, "green": 20}},
         "traffic: expected percentages that are 100 or 0 in sum, got 110"),
        ({"traffic": {"blue": "90"}},
         "traffic.blue: expected an integer from 0 to 100 (percent), got '90'"),
        ({"traffic": {"blue": 101}},
         "traffic.blue: expected an integer from 0 to 100 (percent), got 101"),
        ({"traffic": 90}, "traffic: expected fields 'deployment: percent', got 90"),
        ({"mirror_traffic": {"green": -1}},
         "mirror_traffic.green: expected an integer from 0 to 100 (percent), got -1"),
        ({"auth_mode": "none"},
         "auth_mode: expected key, aml_token or aad_token, got 'none'"),
        ({"trafic": {}}, "trafic: unknown field; did you mean 'traffic'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_endpoint_is_said(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        OnlineEndpoint(name="abc", **fields)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"request_settings": {"request_timeout_ms": 180_001}}, "from 1 to 180000"),
        ({"request_settings": {"request_timeout": 1}}, "did you mean 'request_timeout_ms'"),
        ({"scale_settings": {"type": "default", "max_instances": 3}},
         "scale_settings.max_instances: given, but type: default has a fixed number"),
        ({"scale_settings": {"type": "target_utilization", "min_instances": 3}},
         r"scale_settings.min_instances: expected at most max_instances \(1\), got 3"),
        ({"instance_count": 0}, "instance_count: expected an integer from 1"),
        ({"type": "batch"}, "type: expected managed or kubernetes, got 'batch'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_deployment_is_said(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        OnlineDeployment(name="blue", **fields)


def test_the_sdks_endpoint_is_understood() -> None:
    body = {
        "location": "westus", "tags": {}, "identity": {"type": "SystemAssigned"},
        "properties": {
            "authMode": "Key", "properties": {}, "traffic": {"blue": 100},
            "mirrorTraffic": {"green": 10},
        },
    }
    entity = from_rest(OnlineEndpoint, "my-ep", body)
    assert (entity.auth_mode, entity.traffic, entity.mirror_traffic) == (
        "key", {"blue": 100}, {"green": 10}
    )
    assert to_rest(entity) == {"tags": {}, "properties": body["properties"]}


def test_the_sdks_deployment_is_understood() -> None:
    body = {
        "location": "westus", "tags": {}, "sku": {"name": "Default", "capacity": 3},
        "properties": {
            "endpointComputeType": "Managed",
            "codeConfiguration": {
                "codeId": f"{WORKSPACE}/codes/c/versions/1", "scoringScript": "score.py",
            },
            "environmentId": f"{WORKSPACE}/environments/e/versions/1",
            "environmentVariables": {}, "properties": {},
            "model": f"{WORKSPACE}/models/m/versions/1", "instanceType": "Standard_DS3_v2",
            "appInsightsEnabled": False,
            "requestSettings": {
                "maxConcurrentRequestsPerInstance": 2, "maxQueueWait": "PT0.5S",
                "requestTimeout": "PT3S",
            },
            "livenessProbe": {
                "failureThreshold": 30, "initialDelay": "PT10S", "period": "PT10S",
                "successThreshold": 1, "timeout": "PT2S",
            },
            "scaleSettings": {"scaleType": "Default"},
        },
    }
    entity = from_rest(OnlineDeployment, "blue", body, endpoint_name="my-ep")
    assert entity.instance_count == 3
    assert entity.request_settings == RequestSettings(
        request_timeout_ms=3000, max_concurrent_requests_per_instance=2, max_queue_wait_ms=500
    )
    sent = to_rest(entity)["properties"]
    assert isinstance(sent, dict)
    del body["properties"]["appInsightsEnabled"]   # type: ignore[attr-defined]
    assert sent.pop("readinessProbe") == body["properties"]["livenessProbe"]   # type: ignore[index]
    assert sent == body["properties"]


@pytest.mark.parametrize("duration", ["5", "PT", "PT0.0005S", 5])
def test_a_duration_that_is_none_is_refused(duration: object) -> None:
    body = {"properties": {"requestSettings": {"requestTimeout": duration}}}
    with pytest.raises(InvalidInput, match="expected a duration of whole milliseconds") as caught:
        from_rest(OnlineDeployment, "blue", body)
    assert caught.value.target == "/properties/requestSettings/requestTimeout"


SECONDS = st.integers(0, 3600)
PROBES = st.builds(
    Probe, initial_delay=SECONDS, period=SECONDS, timeout=SECONDS,
    success_threshold=st.integers(1, 9), failure_threshold=st.integers(1, 99),
)
DEPLOYMENTS = st.builds(
    OnlineDeployment,
    name=st.just("blue"),
    type=st.sampled_from(["managed", "kubernetes"]),
    instance_count=st.integers(1, 1000),
    instance_type=st.none() | st.just("Standard_F2s_v2"),
    request_settings=st.builds(
        RequestSettings, request_timeout_ms=st.integers(1, 180_000),
        max_concurrent_requests_per_instance=st.integers(1, 1000),
        max_queue_wait_ms=st.integers(0, 180_000),
    ),
    scale_settings=st.just(ScaleSettings()) | st.builds(
        ScaleSettings, type=st.just("target_utilization"), min_instances=st.integers(1, 5),
        max_instances=st.integers(5, 9), polling_interval=st.integers(1, 3600),
        target_utilization_percentage=st.integers(1, 100),
    ),
    liveness_probe=PROBES,
    readiness_probe=PROBES,
)


@given(DEPLOYMENTS)
def test_a_deployment_comes_back_from_its_body(entity: OnlineDeployment) -> None:
    assert from_rest(OnlineDeployment, "blue", to_rest(entity)) == entity
