from __future__ import annotations

from pathlib import Path

import pytest

from inferay.engine.resources import OnlineDeployment, load
from inferay.errors import InvalidInput
from inferay.serve.declared import batching_of, limits_of, probe_of, scale_of, server_spec
from inferay.serve.replica_spec import Probe, Scale
from inferay.serve.server.calls import Batching
from inferay.serve.server.limits import Limits

SAMPLE = Path(__file__).parents[1] / "engine/resources/samples/online-deployment.yml"


@pytest.fixture
def sample() -> OnlineDeployment:
    return load(OnlineDeployment, SAMPLE).entity


def test_a_deployments_yaml_is_what_the_server_is_told(sample: OnlineDeployment) -> None:
    spec = server_spec(sample, code_dir="/code", model="/models/7/model", prefix="/endpoints/e")
    assert (spec.name, spec.code_dir, spec.scoring_script) == ("blue", "/code", "score.py")
    assert (spec.model_dir, spec.prefix) == ("/models/7", "/endpoints/e")
    assert spec.environment_variables == {"WORKERS": "010"}
    assert spec.limits == Limits(4, queue_wait_s=0.5, request_timeout_s=3.0)
    assert spec.batching == Batching(8, 0.0)
    assert probe_of(sample.liveness_probe) == Probe(20, 5, 2, 1, 30)
    assert scale_of(sample) == Scale(1, 3, 60, 5)


def test_its_local_paths_start_at_its_file(sample: OnlineDeployment) -> None:
    assert sample.code_configuration is not None
    assert sample.code_configuration.code == str(SAMPLE.parent / "code")
    assert getattr(sample.model, "path", None) == str(SAMPLE.parent / "model")


def test_what_is_not_declared_is_azures_default() -> None:
    plain = OnlineDeployment(name="blue")
    assert limits_of(plain) == Limits(1, queue_wait_s=0.5, request_timeout_s=5.0)
    assert (batching_of(plain), scale_of(plain)) == (None, None)
    assert probe_of(plain.readiness_probe) == Probe()


def test_a_deployment_without_code_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'blue': code_configuration: missing"):
        server_spec(OnlineDeployment(name="blue"), code_dir="")


@pytest.mark.parametrize(("properties", "said"), [
    ({"inferay.max_batch_size": "0"}, "max_batch_size: expected a whole number from 1 to 1024"),
    ({"inferay.max_batch_size": "1.5"}, "got '1.5'"),
    ({"inferay.max_batch_size": "9" * 1000}, "expected a whole number"),
    ({"inferay.batch_wait_ms": "-1"}, "batch_wait_ms: expected a whole number from 0"),
    ({"inferay.batch_wait_ms": "٣"}, "expected a whole number"),
])
def test_a_wrong_property_is_named(properties: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        batching_of(OnlineDeployment(name="blue", properties=properties))


@pytest.mark.parametrize(("properties", "said"), [
    ({"inferay.max_batchsize": "8"}, "'inferay.max_batchsize'; did you mean .*max_batch_size'"),
    ({"inferay.retry_sent_requests": "true"}, "unknown property 'inferay.retry_sent_requests'"),
])
def test_a_misspelt_property_of_a_deployment_is_refused(
    sample: OnlineDeployment, properties: dict[str, str], said: str
) -> None:
    sample.properties = {"team": "a", **properties}
    with pytest.raises(InvalidInput, match=said):
        server_spec(sample, code_dir="/code")


def test_properties_that_are_not_ours_are_anybodys(sample: OnlineDeployment) -> None:
    sample.properties = {"team": "a", "azureml.anything": "b", "inferay.allow_cpu": "true"}
    assert server_spec(sample, code_dir="/code").batching is None
