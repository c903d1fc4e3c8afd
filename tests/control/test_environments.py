"""What a deployment's processes run in, and building that ahead of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inferay.control.environments import Surroundings, surroundings
from inferay.control.scored import Scored
from inferay.engine.resources import BatchDeployment
from inferay.engine.scoring.environments import EnvironmentSpec
from inferay.errors import InvalidInput, NotFound
from tests.control.conftest import Plane


def found(plane: Plane, flavor: str = "", model: Any = None, **more: Any) -> Surroundings:
    entity = BatchDeployment.model_validate({"name": "blue", "type": "model", **more})
    with plane.database.read() as session:
        return surroundings(session, entity, Scored(None, model, flavor))


def register(plane: Plane, **properties: Any) -> None:
    plane.put("/v1/environments/mine/versions/1", {"properties": properties}).raise_for_status()


@pytest.mark.parametrize("reference", [
    "azureml:AzureML-sklearn-1.5@latest",
    "azureml:acft-hf-nlp-gpu:7",
    "azureml://registries/azureml/environments/sklearn-1.5/labels/latest",
])
def test_a_curated_environment_is_said_and_never_looked_for(plane: Plane, reference: str) -> None:
    one = found(plane, environment=reference)
    [said] = one.notices
    assert "curated by Azure" in said
    assert (one.spec, one.row, one.hash) == (None, None, "")


def test_an_unknown_environment_of_ones_own_is_not_found(plane: Plane) -> None:
    with pytest.raises(NotFound, match="mine"):
        found(plane, environment="azureml:mine:1")


def test_the_conda_file_beside_an_image_is_what_is_built(plane: Plane) -> None:
    register(plane, image="mcr/a:1", condaFile="dependencies: [python=3.11, numpy=2.1]")
    one = found(plane, environment="azureml:mine:1")
    assert one.spec == EnvironmentSpec(("numpy==2.1.*",), "3.11")
    assert (one.packages, len(one.hash)) == (("numpy",), 64)
    [said] = one.notices
    assert "environment mine version 1: the image mcr/a:1 is not run" in said


@pytest.mark.parametrize(("properties", "what"), [
    ({"image": "mcr/a:1"}, "the image mcr/a:1 alone"),
    ({"build": {"contextUri": "https://host/context.zip"}}, "the Dockerfile alone"),
])
def test_an_image_alone_is_refused_unless_it_may_be_ignored(
    plane: Plane, properties: dict[str, Any], what: str
) -> None:
    register(plane, **properties)
    with pytest.raises(InvalidInput, match=what):
        found(plane, environment="azureml:mine:1")
    one = found(
        plane, environment="azureml:mine:1", properties={"inferay.ignore_image": "true"}
    )
    assert one.spec is None
    assert "is not run" in one.notices[0]


def test_what_mlflow_noted_of_a_model_is_its_environment_unless_another_is_given(
    plane: Plane, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text("six==1.15.0\n")

    class Row:
        path = str(tmp_path)

    assert found(plane, "mlflow", Row()).spec == EnvironmentSpec(("six==1.15.0",))
    assert found(plane, "", Row()).spec is None   # a script's model
    register(plane, condaFile="dependencies: [six]")
    one = found(plane, "mlflow", Row(), environment="azureml:mine:1")
    assert (one.spec, one.notices) == (EnvironmentSpec(("six",)), [])


def built(plane: Plane, version: str) -> dict[str, Any]:
    """Build a version; return its operation."""
    begun = plane.http.post(f"/v1/environments/mine/versions/{version}/build")
    plane.turn()
    ended: dict[str, Any] = plane.http.get(begun.headers["Azure-AsyncOperation"]).json()
    return ended


def test_an_environment_is_built_ahead_or_says_why_it_cannot_be(plane: Plane) -> None:
    register(plane, condaFile="dependencies: [{pip: [six]}]")
    address = "/v1/environments/mine/versions"
    assert built(plane, "latest")["status"] == "Succeeded"
    plane.put(f"{address}/2", {"properties": {"condaFile": "dependencies: [{pip: [six==99]}]"}})
    ended = built(plane, "2")
    assert (ended["status"], ended["error"]["code"]) == ("Failed", "EnvironmentFailed")
    assert "six==99" in ended["error"]["details"][0]["message"]
    plane.put(f"{address}/3", {"properties": {"image": "mcr/a:1"}})
    refused = plane.http.post(f"{address}/3/build")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "ImageNotRun")
