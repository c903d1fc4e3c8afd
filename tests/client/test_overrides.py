from __future__ import annotations

import pytest

from inferay.client.overrides import job_settings
from inferay.errors import InvalidInput


def test_overrides_are_the_properties_of_one_job() -> None:
    assert job_settings([]) == {}
    assert job_settings([
        "settings.mini_batch_size=5", "settings.retry_settings.timeout=60",
        "environment_variables.A=1", "instance_count=2",
        "resources.instance_type=Standard_F2s_v2",
    ]) == {
        "miniBatchSize": 5, "retrySettings": {"timeout": "PT1M"},
        "environmentVariables": {"A": "1"},
        "resources": {"instanceCount": 2, "instanceType": "Standard_F2s_v2"},
    }


@pytest.mark.parametrize(("override", "said"), [
    ("name=j", "--set name: only settings"),
    ("type=model", "--set type: only settings"),
    ("model=azureml:m:1", "--set model: only settings"),
    ("resources.shm_size=2g", "resources.shm_size: has no effect here"),
    ("resources={shm_size: 2g, instance_count: 2}", "resources.shm_size: has no effect here"),
    ("resources.properties.a=1", "resources.properties: has no effect here"),
    ("resources.instance_typ=x", "did you mean"),
])
def test_what_would_have_no_effect_on_one_job_is_refused(override: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        job_settings([override])
    assert "\n" not in caught.value.message
    assert "ignored" not in caught.value.message
