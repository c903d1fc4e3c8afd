"""Entities as Python objects: construction, assignment, equality, the plain form."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from inferay.engine.resources import (
    BatchDeployment,
    BatchEndpoint,
    BatchSettings,
    Compute,
    Datastore,
    DatastoreCredentials,
    Environment,
    Model,
    ServerFacts,
)
from inferay.engine.sizes import FORMS
from inferay.errors import InvalidInput


def test_defaults_are_azures() -> None:
    deployment = BatchDeployment(name="d")
    assert deployment.to_dict() == {
        "name": "d",
        "type": "model",
        "tags": {},
        "properties": {},
        "environment_variables": {},
        "resources": {"instance_count": 1, "properties": {}},
        "settings": {
            "mini_batch_size": 10,
            "split": "auto",
            "max_concurrency_per_instance": 1,
            "output_action": "append_row",
            "output_file_name": "predictions.csv",
            "retry_settings": {"max_retries": 3, "timeout": 30},
            "error_threshold": -1,
            "logging_level": "info",
        },
    }
    compute = Compute(name="c")
    assert (compute.min_instances, compute.max_instances) == (0, 4)
    assert compute.idle_time_before_scale_down == 120


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nam": "d"}, "nam: unknown field; did you mean 'name'? (and 1 more)"),
        ({"name": "d", "settings": {"mini_batch_size": 0}},
         f"settings.mini_batch_size: expected {FORMS}, got 0"),
        ({"name": "d", "mini_batch_size": 10**100},
         f"settings.mini_batch_size: expected {FORMS}, "
         "got a very large number"),
        ({"name": "d", "model": object()},
         "model: expected azureml:NAME:VERSION, azureml:NAME@latest, a resource id or fields "
         "(path, type, …), got an object of type object"),
        ({}, "name: missing; it is required"),
    ],
)  # fmt: skip
def test_construction_raises_our_error_with_the_fields_path(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        BatchDeployment(**fields)
    assert str(caught.value) == message


def test_assignment_is_checked_too() -> None:
    deployment = BatchDeployment(name="d")
    deployment.settings.mini_batch_size = 5
    deployment.settings = {"mini_batch_size": 6}  # type: ignore[assignment]
    assert deployment.settings == BatchSettings(mini_batch_size=6)
    with pytest.raises(InvalidInput, match="mini_batch_size: expected an integer"):
        deployment.settings.mini_batch_size = 0
    assert deployment.settings.mini_batch_size == 6
    with pytest.raises(InvalidInput, match="unknown field; did you mean 'mini_batch_size'"):
        deployment.settings.mini_batch_sze = 5  # type: ignore[attr-defined]


def test_an_assignment_that_fails_changes_nothing() -> None:
    compute = Compute(name="c", min_instances=3)
    with pytest.raises(InvalidInput, match="min_instances: expected at most max_instances"):
        compute.max_instances = 1
    assert compute == Compute(name="c", min_instances=3)


def test_the_flat_form_and_the_one_with_settings_are_the_same_entity() -> None:
    flat: dict[str, Any] = {"mini_batch_size": 5, "instance_count": 2}
    nested: dict[str, Any] = {
        "settings": {"mini_batch_size": 5},
        "resources": {"instance_count": 2},
    }
    older: dict[str, Any] = {"settings": {"mini_batch_size": 5, "instance_count": 2}}
    mixed: dict[str, Any] = {"settings": BatchSettings(mini_batch_size=5), "instance_count": 2}
    entities = [BatchDeployment(name="d", **fields) for fields in (flat, nested, older, mixed)]
    assert entities == [entities[0]] * 4


def test_variables_may_stand_in_settings() -> None:
    fields: dict[str, Any] = {"settings": {"environment_variables": {"A": 1, "B": True}}}
    assert BatchDeployment(name="d", **fields).environment_variables == {"A": "1", "B": "true"}


def test_server_facts_are_read_only_and_do_not_count_for_equality() -> None:
    plain = BatchEndpoint(name="abc")
    endpoint = plain.with_facts(ServerFacts(id="/x", scoring_uri="https://h/jobs"))
    assert endpoint == plain
    assert endpoint.scoring_uri == "https://h/jobs"
    assert endpoint.to_dict()["scoring_uri"] == "https://h/jobs"
    assert "provisioning_state" not in endpoint.to_dict()
    assert plain.id is None
    with pytest.raises((AttributeError, InvalidInput)):
        endpoint.scoring_uri = "x"  # type: ignore[misc]


def test_the_plain_form_is_json_and_masks_secrets() -> None:
    datastore = Datastore(
        name="s",
        type="s3",
        bucket="b",
        credentials=DatastoreCredentials(
            access_key_id="AK",
            secret_access_key="canary",  # type: ignore[arg-type]
        ),
    )
    text = json.dumps(datastore.to_dict())
    assert '"AK"' in text
    assert "canary" not in text + repr(datastore)


def test_entities_survive_pickling() -> None:
    entity = BatchDeployment(name="d", model=Model(path="m"), environment=Environment(image="i"))
    entity = entity.with_facts(ServerFacts(id="/x"))
    copy = pickle.loads(pickle.dumps(entity))
    assert copy == entity
    assert copy.id == "/x"


def test_an_environment_is_built_or_made_of_image_and_conda_not_both() -> None:
    with pytest.raises(InvalidInput, match="build: expected build alone"):
        Environment(image="i", build={"path": "x"})  # type: ignore[arg-type]


def test_conda_content_must_be_plain_data() -> None:
    with pytest.raises(InvalidInput, match="conda_file: expected plain data"):
        Environment(image="i", conda_file={"a": {1}})
    with pytest.raises(InvalidInput, match="conda_file: expected a path or fields"):
        Environment(image="i", conda_file=5)  # type: ignore[arg-type]


def test_infrastructure_fields_are_dropped_in_python_too() -> None:
    fields: dict[str, Any] = {"identity": {"type": "SystemAssigned"}, "location": "westus"}
    assert BatchEndpoint(name="abc", **fields) == BatchEndpoint(name="abc")
