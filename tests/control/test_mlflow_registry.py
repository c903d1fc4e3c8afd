"""Models of the workspace in MLflow's registry, and the other way round."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from inferay.control import assets
from inferay.control.mlflow_registry import HASH_TAG, VERSION_TAG, MlflowRegistry
from inferay.control.mlflow_store import MlflowStore
from inferay.errors import NotFound
from tests.control.conftest import Plane

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning"
)


@pytest.fixture
def registry(plane: Plane, tables: Path) -> MlflowRegistry:
    shutil.copytree(tables.parent, plane.workspace.mlflow)
    plane.context.mlflow = MlflowStore(plane.workspace, {})
    return MlflowRegistry(plane.context, plane.context.mlflow, pause_s=0.0)


@pytest.fixture
def client(plane: Plane, registry: MlflowRegistry) -> MlflowClient:
    return plane.context.mlflow.client()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model as MLflow writes one."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: m\n")
    (folder / "weights").write_text("1")
    return folder


def put(plane: Plane, path: Path | str, version: str, kind: str = "mlflow_model") -> dict[str, Any]:
    body = {"properties": {"modelUri": str(path), "modelType": kind}}
    plane.put(f"/v1/models/m/versions/{version}", body).raise_for_status()
    return show(plane, version)


def show(plane: Plane, version: str) -> dict[str, Any]:
    answer = plane.http.get(f"/v1/models/m/versions/{version}")
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()["properties"]
    return found


def turn(plane: Plane, registry: MlflowRegistry) -> None:
    """Let the registry and the loop go on until nothing is left to do."""
    for _ in range(3):
        registry.turn()
        plane.turn()


def test_a_registered_model_is_a_version_of_mlflows_with_both_tags(
    plane: Plane, registry: MlflowRegistry, client: MlflowClient, folder: Path
) -> None:
    made = put(plane, folder, "winter-3")
    assert made["flavors"] == {"python_function": {"loader_module": "m"}}
    turn(plane, registry)
    (found,) = client.search_model_versions("name = 'm'")
    assert found.tags == {VERSION_TAG: "winter-3", HASH_TAG: made["contentHash"]}
    assert (Path(found.source.removeprefix("file://")) / "weights").read_text() == "1"
    assert show(plane, "winter-3")["properties"] == {"inferay.mlflow_version": "1"}
    assert put(plane, folder, "winter-3") == show(plane, "winter-3")   # a repeat changes nothing


def test_a_crash_after_mlflow_made_the_version_makes_no_second_one(
    plane: Plane, registry: MlflowRegistry, client: MlflowClient, folder: Path
) -> None:
    class CrashError(BaseException):
        pass

    def crash(name: str) -> None:
        if name == "mlflow.version:made":
            raise CrashError

    put(plane, folder, "1")
    plane.context.checkpoint = crash
    with pytest.raises(CrashError):
        registry.turn()
    plane.context.checkpoint = lambda name: None
    turn(plane, MlflowRegistry(plane.context, plane.context.mlflow))
    assert len(client.search_model_versions("name = 'm'")) == 1
    assert show(plane, "1")["properties"] == {"inferay.mlflow_version": "1"}


def test_versions_made_in_mlflow_appear_under_its_number_with_their_aliases(
    plane: Plane, registry: MlflowRegistry, client: MlflowClient, folder: Path
) -> None:
    client.create_registered_model("m")
    client.create_model_version("m", folder.as_uri())
    client.set_registered_model_alias("m", "prod", "1")
    turn(plane, registry)
    found = show(plane, "1")
    assert found.get("error") is None
    assert (found["provisioningState"], found["modelType"]) == ("Succeeded", "mlflow_model")
    assert found["properties"] == {"inferay.mlflow_version": "1", "inferay.labels": "prod"}
    assert client.get_model_version("m", "1").tags == {
        VERSION_TAG: "1", HASH_TAG: found["contentHash"]
    }
    with plane.database.read() as session:
        assert assets.find(session, "models", "azureml:m@prod").version == "1"
        with pytest.raises(NotFound, match=r"no label 'test' of model m; there is 'la"):
            assets.find(session, "models", "azureml:m@test")
    assert len(client.search_model_versions("name = 'm'")) == 1


def test_a_disagreement_is_named_and_nothing_is_overwritten(
    plane: Plane, registry: MlflowRegistry, client: MlflowClient, folder: Path
) -> None:
    for version in ("1", "3"):
        put(plane, folder, version)
    turn(plane, registry)
    before = show(plane, "1")
    client.set_model_version_tag("m", "1", HASH_TAG, "another")
    other = folder.parent / "other"
    other.mkdir()
    client.create_model_version("m", other.as_uri())   # its number is 3
    turn(plane, registry)
    assert "tagged inferay.content_hash = another" in (
        show(plane, "1")["properties"]["inferay.mlflow_notice"]
    )
    assert show(plane, "1")["contentHash"] == before["contentHash"]
    assert client.get_model_version("m", "1").tags[HASH_TAG] == "another"
    assert "MLflow's version 3 of m is another model" in (
        show(plane, "3")["properties"]["inferay.mlflow_notice"]
    )
    client.set_model_version_tag("m", "1", HASH_TAG, before["contentHash"])
    client.delete_model_version("m", "2")
    turn(plane, registry)
    assert show(plane, "1") == before
    assert "was deleted" in show(plane, "3")["properties"]["inferay.mlflow_notice"]


def test_models_come_from_runs_and_from_the_registry(
    plane: Plane, registry: MlflowRegistry, client: MlflowClient, folder: Path, tmp_path: Path
) -> None:
    experiment = client.create_experiment("e", artifact_location=(tmp_path / "kept").as_uri())
    run = client.create_run(experiment).info.run_id
    client.log_artifacts(run, str(folder), "nets/best")
    first = put(plane, f"runs:/{run}/nets/best", "1")
    turn(plane, registry)
    client.set_registered_model_alias("m", "prod", "1")
    second, third = put(plane, "models:/m/1", "2"), put(plane, "models:/m@prod", "3")
    hashes = {one["contentHash"] for one in (first, second, third)}
    assert hashes == {put(plane, folder, "4")["contentHash"]}
    body = {"properties": {"modelUri": f"runs:/{run}/nets/none"}}
    operation = plane.put("/v1/models/m/versions/5", body).headers["Azure-AsyncOperation"]
    error = plane.http.get(operation.partition("https://test")[2]).json()["error"]
    assert "nets/none: MLflow cannot give it" in error["message"]
    body = {"properties": {"modelUri": "runs:/only"}}
    assert plane.put("/v1/models/m/versions/6", body).status_code == 400


def test_a_server_is_sent_the_content_and_its_models_are_copied_when_asked_for(
    plane: Plane, registry: MlflowRegistry, tables: Path, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(tables, tmp_path / "server.db")
    store = MlflowStore(plane.workspace, {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/server.db"})
    plane.context.mlflow = store
    client = store.client()
    client.create_registered_model("other")
    client.create_model_version("other", folder.as_uri())
    client.set_registered_model_alias("other", "prod", "1")
    put(plane, folder, "1")
    turn(plane, MlflowRegistry(plane.context, store))
    (found,) = client.search_model_versions("name = 'm'")
    assert found.run_id
    assert not found.source.startswith(plane.workspace.assets.as_uri())
    reference = {"properties": {"modelUri": "models:/other/1"}}
    with plane.database.read() as session, pytest.raises(Exception, match="model create -n other"):
        assets.find(session, "models", "azureml:other:1")
    plane.put("/v1/models/other/versions/1", reference).raise_for_status()
    with plane.database.read() as session:
        copied = assets.find(session, "models", "azureml:other@prod")
    assert (Path(str(copied.path)) / "MLmodel").exists()
    assert copied.properties["modelType"] == "mlflow_model"   # as its content is
    assert plane.put("/v1/models/other/versions/1", reference).status_code == 200


def test_a_file_mlmodel_that_is_missing_or_truncated_is_refused(
    plane: Plane, folder: Path
) -> None:
    for text, code in (("flavors:\n  python_function: {loader", "BadMLmodel"), (None, "NoMLmodel")):
        (folder / "MLmodel").unlink()
        if text is not None:
            (folder / "MLmodel").write_text(text)
        body = {"properties": {"modelUri": str(folder), "modelType": "mlflow_model"}}
        plane.put("/v1/models/m/versions/1", body)
        assert show(plane, "1")["error"]["code"] == code
        (folder / "MLmodel").touch()
