"""Every Azure-style sample loads, and means what Azure says it means."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from inferay.engine.resources import (
    BatchDeployment,
    BatchEndpoint,
    Compute,
    Data,
    Datastore,
    Entity,
    Environment,
    Model,
    OnlineDeployment,
    OnlineEndpoint,
    load,
)

SAMPLES = Path(__file__).parent / "samples"
KINDS: dict[str, type[Entity]] = {
    "batch-endpoint.yml": BatchEndpoint,
    "deployment-settings.yml": BatchDeployment,
    "deployment-flat.yml": BatchDeployment,
    "deployment-ids.yml": BatchDeployment,
    "deployment-files.yml": BatchDeployment,
    "online-endpoint.yml": OnlineEndpoint,
    "online-deployment.yml": OnlineDeployment,
    "model.yml": Model,
    "data.yml": Data,
    "environment/environment.yml": Environment,
    "environment-docker.yml": Environment,
    "compute.yml": Compute,
    "datastore.yml": Datastore,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_sample_loads_again_from_its_own_dump(name: str, tmp_path: Path) -> None:
    entity = load(KINDS[name], SAMPLES / name).entity
    data = entity.to_dict()
    if name == "datastore.yml":  # a dump masks secrets
        data["credentials"]["account_key"] = "canary-9f3b7c"
    dump = tmp_path / "dump.yml"
    dump.write_text(yaml.safe_dump(data))
    assert load(KINDS[name], dump).entity == entity


def test_an_endpoint_keeps_the_text_of_its_tags() -> None:
    loaded = load(BatchEndpoint, SAMPLES / "batch-endpoint.yml")
    assert loaded.entity.tags == {"type": "classification", "version": "1.10"}
    assert loaded.warnings == []


def test_a_deployment_with_settings_has_absolute_paths_and_its_conda_file() -> None:
    entity = load(BatchDeployment, SAMPLES / "deployment-settings.yml").entity
    assert isinstance(entity.model, Model)
    assert entity.model.path == str(SAMPLES / "model")
    assert entity.code_configuration is not None
    assert entity.code_configuration.code == str(SAMPLES / "code")
    assert isinstance(entity.environment, Environment)
    assert entity.environment.conda_file == {
        "name": "mnist-env",
        "channels": ["conda-forge"],
        "dependencies": [
            "python=3.11",
            "pip",
            {"pip": ["scikit-learn==1.6.0", "numpy", "pandas"]},
        ],
    }
    assert entity.settings.max_concurrency_per_instance == 2


def test_a_flat_deployment_becomes_one_with_settings() -> None:
    entity = load(BatchDeployment, SAMPLES / "deployment-flat.yml").entity
    assert entity.settings.model_dump() == {
        "mini_batch_size": 20,
        "split": "auto",
        "max_concurrency_per_instance": 4,
        "output_action": "summary_only",
        "output_file_name": "scores.csv",
        "retry_settings": {"max_retries": 5, "timeout": 300},
        "error_threshold": 10,
        "logging_level": "warning",
    }
    assert entity.resources.instance_count == 2
    assert entity.environment_variables == {"BATCH": "010", "DEBUG": "yes"}


def test_a_deployment_takes_its_model_and_environment_from_files_of_their_own() -> None:
    loaded = load(BatchDeployment, SAMPLES / "deployment-files.yml")
    assert isinstance(loaded.entity.model, Model)
    assert loaded.entity.model.name == "heart-classifier"
    assert loaded.entity.model.version == "1"
    assert isinstance(loaded.entity.environment, Environment)
    assert isinstance(loaded.entity.environment.conda_file, dict)
    assert [warning.removeprefix(str(SAMPLES)) for warning in loaded.warnings] == [
        "/deployment-files.yml:8: app_insights_enabled: has no effect here; ignored",
        "/deployment-files.yml:11: resources.docker_args: has no effect here; ignored",
        "/model.yml:7: stage: has no effect here; ignored",
    ]


def test_a_compute_names_what_has_no_effect() -> None:
    loaded = load(Compute, SAMPLES / "compute.yml")
    assert loaded.entity.tier == "low_priority"
    assert [line.split(": ")[1] for line in loaded.warnings] == [
        "location",
        "tier",
        "network_settings",
    ]


def test_a_datastores_secret_shows_nowhere() -> None:
    entity = load(Datastore, SAMPLES / "datastore.yml").entity
    assert entity.credentials is not None
    assert entity.credentials.account_key is not None
    assert entity.credentials.account_key.get_secret_value() == "canary-9f3b7c"
    assert "canary" not in f"{entity!r} {entity} {entity.to_dict()}"


def test_loading_through_the_class_gives_the_entity_with_its_warnings() -> None:
    entity = Compute.load(SAMPLES / "compute.yml", ["max_instances=7"], min_instances=2)
    assert (entity.min_instances, entity.max_instances) == (2, 7)
    assert len(entity.warnings) == 3
