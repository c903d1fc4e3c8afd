from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inferay.control.applications import (
    armed,
    as_revision,
    needs_new_processes,
    read_application,
    resolve,
    write_application,
)
from inferay.control.context import Machine
from inferay.engine.resources import OnlineDeployment, from_rest
from inferay.errors import Conflict, InvalidInput, NotFound
from inferay.serve.replica_spec import ApplicationSpec, ReplicaResources
from inferay.serve.routing import credential
from tests.control.conftest import Plane

GIB = 1 << 30


@pytest.fixture
def with_code(plane: Plane, make_code: Callable[..., Path]) -> Plane:
    plane.put("/v1/codes/c/versions/1", {"properties": {"codeUri": str(make_code())}})
    return plane


def resolved(
    plane: Plane, *, instances: int = 1, **properties: Any
) -> tuple[ApplicationSpec, list[str]]:
    body = {"sku": {"capacity": instances}, "properties": {
        "codeConfiguration": {"codeId": "azureml:c:1", "scoringScript": "score.py"}, **properties,
    }}
    entity = from_rest(OnlineDeployment, "blue", body, endpoint_name="digits")
    with plane.database.read() as session:
        return resolve(plane.context, session, entity)


def test_a_deployment_becomes_what_its_replicas_are_told(
    with_code: Plane, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("1")
    with_code.put("/v1/models/m/versions/1", {"properties": {"modelUri": str(tmp_path / "model")}})
    found, notices = resolved(
        with_code, model="azureml:m@latest", environmentVariables={"A": "b"},
        requestSettings={"maxConcurrentRequestsPerInstance": 4, "requestTimeout": "PT2S"},
    )
    server = found.spec.server
    assert (server.name, server.version, server.prefix) == ("digits", "blue", "/endpoints/digits")
    assert (Path(server.code_dir) / server.scoring_script).exists()
    assert (Path(server.model_dir) / "model" / "weights").read_text() == "1"
    assert server.environment_variables == {"A": "b"}
    assert (server.limits.concurrent_requests_max, server.limits.request_timeout_s) == (4, 2.0)
    assert notices == []
    assert read_application(write_application(found)) == found


def test_instances_of_one_machine_reserve_little_of_it_and_know_their_size(
    with_code: Plane
) -> None:
    assert resolved(with_code)[0].resources == ReplicaResources(round(1 / 64, 4), threads=1)
    found, notices = resolved(with_code, instanceType="Standard_DS3_v2")
    assert found.resources == ReplicaResources(round(2 / 64, 4), threads=2)
    assert notices == [
        "instance type Standard_DS3_v2 has 4 CPUs and this machine 2; 2 are used"
    ]


def test_a_gpu_that_is_not_here_is_refused_unless_cpus_will_do(with_code: Plane) -> None:
    with pytest.raises(InvalidInput, match=r"inferay\.allow_cpu"):
        resolved(with_code, instanceType="Standard_NC6s_v3")
    found, _ = resolved(
        with_code, instanceType="Standard_NC6s_v3", properties={"inferay.allow_cpu": "true"}
    )
    assert found.resources.num_gpus == 0.0


def test_instances_of_a_cluster_ask_for_what_their_type_has(with_code: Plane) -> None:
    with_code.context.is_embedded = False
    with_code.context.machine = Machine(cpus=1, cores=1, gpus=0, memory_bytes=GIB)
    found, notices = resolved(with_code, instanceType="Standard_DS3_v2")
    assert found.resources == ReplicaResources(4, 0.0, 14 * GIB, 4)
    assert (found.spec.host, notices) == (None, [])
    wanted = {"containerResourceRequests": {"cpu": "500m", "memory": "0.5Gi", "nvidia.com/gpu": 1}}
    found, _ = resolved(
        with_code, endpointComputeType="Kubernetes", containerResourceRequirements=wanted
    )
    assert found.resources == ReplicaResources(1, 1.0, GIB // 2, 1)
    wanted["containerResourceRequests"]["cpu"] = "much"
    with pytest.raises(InvalidInput, match=r"such as 0\.5, 500m or 1Gi, got 'much'"):
        resolved(with_code, containerResourceRequirements=wanted)


def test_a_model_of_mlflow_needs_no_code(plane: Plane, tmp_path: Path) -> None:
    (tmp_path / "clf").mkdir()
    model = {"modelUri": str(tmp_path / "clf"), "modelType": "mlflow_model"}
    plane.put("/v1/models/m/versions/1", {"properties": model})
    said = "model m version 1 is Failed: .*clf is no MLflow model: it has no file MLmodel"
    with pytest.raises(Conflict, match=said):
        resolved(plane, codeConfiguration=None, model="azureml:m:1")
    (tmp_path / "clf" / "MLmodel").write_text("flavors: {}\n")
    plane.put("/v1/models/m/versions/2", {"properties": model})
    server = resolved(plane, codeConfiguration=None, model="azureml:m:2")[0].spec.server
    assert (server.flavor, server.code_dir, Path(server.model).name) == ("mlflow", "", "clf")
    assert server.model_dir == str(Path(server.model).parent)
    with pytest.raises(InvalidInput, match=r"max_batch_size: counts for a scoring script"):
        resolved(
            plane, codeConfiguration=None, model="azureml:m:2",
            properties={"inferay.max_batch_size": "8"},
        )
    plane.put("/v1/models/own/versions/1", {"properties": {"modelUri": str(tmp_path / "clf")}})
    with pytest.raises(InvalidInput, match="needs a scoring script"):
        resolved(plane, codeConfiguration=None, model="azureml:own:1")


def test_a_repository_of_triton_needs_no_code(plane: Plane, tmp_path: Path) -> None:
    version = tmp_path / "repository" / "net" / "1"
    version.mkdir(parents=True)
    model = {"modelUri": str(tmp_path / "repository"), "modelType": "triton_model"}
    plane.put("/v1/models/m/versions/1", {"properties": model})
    server = resolved(plane, codeConfiguration=None, model="azureml:m:1")[0].spec.server
    assert (server.flavor, Path(server.model).name) == ("triton", "repository")
    plane.put("/v1/models/m/versions/2", {"properties": model | {"modelUri": str(version.parent)}})
    with pytest.raises(Conflict, match="is one model of a Triton repository; give the folder that"):
        resolved(plane, codeConfiguration=None, model="azureml:m:2")


def test_what_is_missing_is_said_before_anything_starts(with_code: Plane) -> None:
    with pytest.raises(NotFound, match="no model ghost"):
        resolved(with_code, model="azureml:ghost:1")
    with pytest.raises(InvalidInput, match="needs a scoring script"):
        resolved(with_code, codeConfiguration=None)
    with pytest.raises(InvalidInput, match=r"inferay\.max_batch_size"):
        resolved(with_code, properties={"inferay.max_batch_size": "many"})
    _, notices = resolved(with_code, environmentId="azureml:AzureML-sklearn-1.5@latest")
    assert "curated by Azure" in notices[0]


def test_only_what_a_running_process_cannot_take_over_needs_a_new_one(with_code: Plane) -> None:
    one = as_revision(with_code.context, resolved(with_code)[0], "r1")
    scale = {"scaleType": "TargetUtilization", "minInstances": 2, "maxInstances": 3}
    for same in (
        resolved(with_code, instances=5)[0], resolved(with_code, scaleSettings=scale)[0],
        resolved(with_code, description="new")[0],
    ):
        assert not needs_new_processes(one, same)
    for other in (
        resolved(with_code, environmentVariables={"A": "b"})[0],
        resolved(with_code, instanceType="Standard_DS2_v2")[0],
        resolved(with_code, requestSettings={"requestTimeout": "PT1S"})[0],
    ):
        assert needs_new_processes(one, other)


def test_the_first_number_of_instances_is_within_its_scale(with_code: Plane) -> None:
    scale = {"scaleType": "TargetUtilization", "minInstances": 2, "maxInstances": 3}
    counts = [resolved(with_code, instances=n, scaleSettings=scale)[0].instances for n in (1, 3, 9)]
    assert counts == [2, 3, 3]


def test_a_credential_is_added_for_serve_and_is_in_no_row(with_code: Plane) -> None:
    one = as_revision(with_code.context, resolved(with_code)[0], "r1")
    told = armed(one, edge_url="http://127.0.0.1:1", registration_key=b"key")
    assert told.spec.credential == credential(b"key", "digits", "blue", "r1")
    assert told.spec.credential not in str(write_application(one))
    assert replace(told, spec=replace(told.spec, credential="", edge_url=None)) == one
    assert Path(one.spec.log_dir).parts[-4:] == ("online", "digits", "blue", "r1")
