from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferay.control import assets
from inferay.errors import NotFound
from tests.control.conftest import Plane, deploy, invocation


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_text("1")
    (folder / "inner" / "more").write_text("2")
    return folder


def put(plane: Plane, path: Path, name: str = "m", version: str = "1") -> dict[str, Any]:
    """Register a model; return it as it is then."""
    address = f"/v1/models/{name}/versions/{version}"
    plane.put(address, {"properties": {"modelUri": str(path)}}).raise_for_status()
    found: dict[str, Any] = plane.http.get(address).json()["properties"]
    return found


def snapshots(plane: Plane, kind: str = "models") -> list[str]:
    root = plane.workspace.assets / kind
    return sorted(str(p.relative_to(root)).partition("/")[2] for p in root.rglob("*")
                  if p.is_file())


def status(plane: Plane, path: Path, version: str = "1") -> int:
    answer = plane.put(f"/v1/models/m/versions/{version}", {"properties": {"modelUri": str(path)}})
    return answer.status_code


def test_a_snapshot_does_not_change_with_what_it_was_made_of(plane: Plane, model: Path) -> None:
    first = put(plane, model)
    (model / "weights").write_text("changed")
    (model / "new").write_text("")
    assert snapshots(plane) == ["model/inner/more", "model/weights"]
    assert plane.http.get("/v1/models/m/versions/1").json()["properties"] == first


def test_equal_content_is_kept_once(plane: Plane, model: Path) -> None:
    hashes = {put(plane, model, name)["contentHash"] for name in ("a", "b")}
    assert len(hashes) == 1
    assert snapshots(plane) == ["model/inner/more", "model/weights"]


def test_equal_content_under_another_name_keeps_its_name(plane: Plane, tmp_path: Path) -> None:
    for name in ("one.bin", "two.bin"):
        (tmp_path / name).write_text("same")
    found = [put(plane, tmp_path / name, name[:3]) for name in ("one.bin", "two.bin", "one.bin")]
    assert len({one["contentHash"] for one in found}) == 1
    assert snapshots(plane) == ["one.bin", "two.bin"]


def test_caches_and_repositories_are_left_out(plane: Plane, model: Path) -> None:
    before = put(plane, model)["contentHash"]
    for name in ("__pycache__", ".git", ".ipynb_checkpoints"):
        (model / "inner" / name).mkdir()
        (model / "inner" / name / "x").write_text("x")
    assert put(plane, model, version="2")["contentHash"] == before
    assert snapshots(plane) == ["model/inner/more", "model/weights"]


def test_a_repeat_changes_nothing_and_other_content_is_refused(plane: Plane, model: Path) -> None:
    assert (status(plane, model), status(plane, model)) == (201, 200)
    for name in ("__pycache__", ".git", ".ipynb_checkpoints"):   # what a snapshot leaves out
        (model / name).mkdir()
        (model / name / "x").write_text("x")
    assert status(plane, model) == 200
    (model / "weights").write_text("2")
    assert status(plane, model) == 409
    assert status(plane, model, "2") == 201


def test_a_repeat_of_a_folder_with_linked_folders_changes_nothing(
    plane: Plane, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked").write_text("3")
    (model / "link").symlink_to(tmp_path / "elsewhere")
    assert (status(plane, model), status(plane, model)) == (201, 200)
    assert "model/link/linked" in snapshots(plane)


def test_a_file_that_cannot_be_copied_fails_the_version_by_its_name(
    plane: Plane, model: Path
) -> None:
    (model / "lock").symlink_to("nothing")
    assert status(plane, model) == 201
    found = plane.http.get("/v1/models/m/versions/1").json()["properties"]
    assert (found["provisioningState"], found["error"]["code"]) == ("Failed", "InvalidInput")
    assert "lock" in found["error"]["message"]
    assert list(plane.workspace.assets.iterdir()) == []   # nothing half made
    (model / "lock").unlink()
    assert status(plane, model) == 201   # a failed version can be put again
    assert put(plane, model)["provisioningState"] == "Succeeded"


@pytest.mark.parametrize("path", ["/no/where", "/" + "x" * 300, "/dev/null"])
def test_a_path_that_is_no_file_or_folder_is_refused(plane: Plane, path: str) -> None:
    assert status(plane, Path(path)) == 400
    assert plane.http.get("/v1/models").json()["value"] == []


def test_a_pipe_is_refused_and_not_waited_for(plane: Plane, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert status(plane, tmp_path / "pipe") == 400


def test_latest_is_the_version_that_was_registered_last(plane: Plane, model: Path) -> None:
    for version in ("2", "rc-1", "1"):
        put(plane, model, version=version)
    assert plane.http.get("/v1/models/m/versions/latest").json()["name"] == "1"
    plane.http.delete("/v1/models/m/versions/1").raise_for_status()
    assert plane.http.get("/v1/models/m/versions/latest").json()["name"] == "rc-1"
    assert plane.http.get("/v1/models/m").json()["properties"]["latestVersion"] == "rc-1"


def test_the_next_version_is_the_next_number_whatever_else_there_is(
    plane: Plane, model: Path
) -> None:
    body = {"properties": {"modelUri": str(model)}}
    assert plane.http.post("/v1/models/m/versions", json=body).json()["name"] == "1"
    plane.turn()
    for version in ("7", "rc-1", "2024-01-01"):
        put(plane, model, version=version)
    assert plane.http.get("/v1/models/m").json()["properties"]["nextVersion"] == "8"
    assert plane.http.post("/v1/models/m/versions", json=body).json()["name"] == "8"


def test_a_version_that_is_deleted_while_it_is_made_ends_its_operation(
    plane: Plane, model: Path
) -> None:
    body = {"properties": {"modelUri": str(model)}}
    answer = plane.http.put("/v1/models/m/versions/1", json=body)
    operation = answer.headers["Azure-AsyncOperation"].rpartition("/")[2]
    plane.http.delete("/v1/models/m/versions/1").raise_for_status()
    plane.turn()
    assert plane.http.get(f"/v1/operations/{operation}").json()["status"] == "Failed"
    assert plane.runner.due() == []


MODEL_DIR = """
import os

def init():
    pass

def run(mini_batch):
    root = os.environ["AZUREML_MODEL_DIR"]
    found = [os.path.relpath(os.path.join(parent, name), root)
             for parent, _, names in os.walk(root) for name in names]
    return [",".join(sorted(found))] * len(mini_batch)
"""


@pytest.mark.parametrize(("is_folder", "expected"), [
    (True, "model/inner/more,model/weights"), (False, "weights"),
])
def test_a_script_finds_the_model_under_its_own_name(
    plane: Plane, make_code: Callable[..., Path], data: Path, model: Path, is_folder: bool,
    expected: str,
) -> None:
    put(plane, model if is_folder else model / "weights")
    deploy(plane, make_code(MODEL_DIR), model={
        "referenceType": "Id", "assetId": "azureml:m:1",
    })
    plane.http.post("/endpoints/digits/jobs", json=invocation(data, name="j")).raise_for_status()
    job = plane.wait("j")
    assert job["status"] == "Completed"
    rows = (Path(job["outputs"]["score"]["path"]) / "predictions.csv").read_text().splitlines()
    assert set(rows) == {expected}


@pytest.mark.parametrize(("reference", "said"), [
    ("azureml:m@production", "no label 'production' of model m; there is 'latest'"),
    ("azureml://registries/hub/models/m/versions/1", "no registries here; register it"),
    ("azureml://registries/hub/models/m/labels/latest", "is of the registry 'hub'"),
])
def test_a_label_or_a_registry_is_never_taken_for_the_workspaces_own(
    plane: Plane, model: Path, reference: str, said: str
) -> None:
    put(plane, model)
    with plane.database.read() as session, pytest.raises(NotFound, match=said):
        assets.find(session, "models", reference)
