"""`ray-cluster.yaml` beside the fields that KubeRay's RayCluster (ray.io/v1) has.

The schema here is trimmed to what the file uses or may soon use; a field that KubeRay does not have
is an error. No Kubernetes is asked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_QUANTITY: Schema = {
    "anyOf": [{"type": "string", "pattern": r"^\d+(\.\d+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"}, _COUNT],
}


def _fields(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {
        "type": "object", "properties": properties, "required": list(required),
        "additionalProperties": False,
    }


def _list(of: Schema, at_least: int = 0) -> Schema:
    return {"type": "array", "items": of, "minItems": at_least}


_QUANTITIES: Schema = {"type": "object", "additionalProperties": _QUANTITY}
_RESOURCES = _fields(requests=_QUANTITIES, limits=_QUANTITIES)
_VARIABLE = _fields(("name",), name=_TEXT, value={"type": "string"}, valueFrom={"type": "object"})
_MOUNT = _fields(
    ("name", "mountPath"), name=_TEXT, mountPath={"type": "string", "pattern": "^/"},
    readOnly={"type": "boolean"}, subPath=_TEXT,
)
_CONTAINER = _fields(
    ("name", "image", "resources"),   # resources: KubeRay tells Ray the limits of the container
    name=_TEXT, image=_TEXT, imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    command=_list(_TEXT), args=_list(_TEXT), env=_list(_VARIABLE), envFrom=_list({}),
    ports=_list(_fields(
        ("containerPort",), name={"type": "string", "pattern": "^[a-z0-9-]{1,15}$"},
        containerPort={"type": "integer", "minimum": 1, "maximum": 65535},
        protocol={"enum": ["TCP", "UDP", "SCTP"]},
    )),
    resources=_RESOURCES, volumeMounts=_list(_MOUNT), securityContext={"type": "object"},
)
_POD = _fields(
    ("spec",),
    metadata=_fields(labels=_TEXTS, annotations=_TEXTS),
    spec=_fields(
        ("containers",),
        containers=_list(_CONTAINER, 1), initContainers=_list({"type": "object"}),
        volumes=_list({"type": "object", "required": ["name"]}),
        tolerations=_list(_fields(
            key=_TEXT, operator={"enum": ["Exists", "Equal"]}, value={"type": "string"},
            effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
            tolerationSeconds=_COUNT,
        )),
        nodeSelector=_TEXTS, affinity={"type": "object"}, serviceAccountName=_TEXT,
        imagePullSecrets=_list(_fields(("name",), name=_TEXT)), securityContext={"type": "object"},
        restartPolicy={"const": "Never"},   # all that KubeRay takes with autoscaler v2
    ),
)
_HEAD = _fields(
    ("template", "rayStartParams"),
    template=_POD, rayStartParams=_TEXTS, resources=_TEXTS, labels=_TEXTS,
    headService={"type": "object"}, enableIngress={"type": "boolean"},
    ingressOptions={"type": "object"},
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]},
)
_WORKERS = _fields(
    ("groupName", "minReplicas", "maxReplicas", "template", "rayStartParams"),
    groupName=_TEXT, replicas=_COUNT, minReplicas=_COUNT, maxReplicas=_COUNT, numOfHosts=_COUNT,
    idleTimeoutSeconds=_COUNT, priority={"type": "integer"}, suspend={"type": "boolean"},
    resources=_TEXTS, labels=_TEXTS, rayStartParams=_TEXTS, template=_POD,
    scaleStrategy=_fields(workersToDelete=_list(_TEXT)),
)
_AUTOSCALER = _fields(
    version={"enum": ["v1", "v2"]},
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    idleTimeoutSeconds=_COUNT, resources=_RESOURCES, image=_TEXT, imagePullPolicy=_TEXT,
    securityContext={"type": "object"}, env=_list(_VARIABLE), envFrom=_list({}),
    volumeMounts=_list(_MOUNT), command=_list(_TEXT), args=_list(_TEXT),
)
RAY_CLUSTER = _fields(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"}, kind={"const": "RayCluster"},
    metadata=_fields(
        ("name",), name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        namespace=_TEXT, labels=_TEXTS, annotations=_TEXTS,
    ),
    spec=_fields(
        ("headGroupSpec", "rayVersion"),
        rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        authOptions=_fields(
            mode={"enum": ["disabled", "token"]}, secretName=_TEXT,
            enableK8sTokenAuth={"type": "boolean"},
        ),
        enableInTreeAutoscaling={"type": "boolean"}, autoscalerOptions=_AUTOSCALER,
        headGroupSpec=_HEAD, workerGroupSpecs=_list(_WORKERS),
        headServiceAnnotations=_TEXTS, gcsFaultToleranceOptions={"type": "object"},
        suspend={"type": "boolean"}, managedBy=_TEXT, upgradeStrategy={"type": "object"},
        networkPolicy={"type": "object"}, tlsOptions={"type": "object"},
        historyServerOptions={"type": "object"},
    ),
)


@pytest.fixture
def cluster() -> Any:
    return yaml.safe_load((ROOT / "ray-cluster.yaml").read_text())


def _containers(cluster: Any) -> list[Any]:
    spec = cluster["spec"]
    return [
        container for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
        for container in group["template"]["spec"]["containers"]
    ]


def test_it_has_only_fields_that_kuberay_has(cluster: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(RAY_CLUSTER)
    jsonschema.validate(cluster, RAY_CLUSTER)


@pytest.mark.parametrize("field", ["authOptions", "enableInTreeAutoscaling", "workerGroupSpecs"])
def test_a_misspelt_field_would_be_found(cluster: Any, field: str) -> None:
    cluster["spec"][f"{field}x"] = cluster["spec"].pop(field)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster, RAY_CLUSTER)


def test_ray_asks_for_a_token(cluster: Any) -> None:
    # KubeRay takes no mode for no token, and refuses a Ray that does not know tokens.
    assert cluster["spec"]["authOptions"]["mode"] == "token"
    assert tuple(map(int, cluster["spec"]["rayVersion"].split("."))) >= (2, 52, 0)


def test_its_ray_is_the_one_that_is_pinned(cluster: Any) -> None:
    pin = re.search(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert pin is not None
    assert cluster["spec"]["rayVersion"] == pin.group(1)


def test_no_worker_of_a_job_runs_on_the_head(cluster: Any) -> None:
    assert cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_cpu_and_gpu_groups_grow_and_shrink(cluster: Any) -> None:
    assert cluster["spec"]["enableInTreeAutoscaling"] is True
    groups = {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    assert all(group["minReplicas"] < group["maxReplicas"] for group in groups.values())
    assert groups["gpu"]["minReplicas"] == 0
    pod = groups["gpu"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert any(toleration["key"] == "nvidia.com/gpu" for toleration in pod["tolerations"])


def test_every_container_has_requests_and_limits_and_the_shared_data(cluster: Any) -> None:
    for container in _containers(cluster):
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][kind])
        assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
