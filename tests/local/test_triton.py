"""A Triton model repository behind the edge, asked by Triton's own clients."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent.ssl
import numpy
import onnxruntime
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from tests import triton_models
from tests.local.conftest import Local

pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "triton"

#: What is no request of the protocol.
WRONG = (
    b"", b"{", b"[]", b'{"inputs": 1}', b'{"inputs": [1]}', b'{"inputs": [{"name": "x"}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, -3], "data": [1, 2, 3]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP33", "shape": [1, 3], "data": [1, 2, 3]}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": {"a": 1}}]}',
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], '
    b'"parameters": {"binary_data_size": 12}}]}',
)

DEPLOYMENT = """\
name: blue
endpoint_name: models
model:
  path: ./repository
  type: triton_model
request_settings: {max_concurrent_requests_per_instance: 16, max_queue_wait_ms: 5000}
environment_variables: {INFERAY_TRITON_MODEL: linear}
"""

#: What Triton's two clients have in common.
CLIENTS = ("http", "grpc")


@dataclass
class Served:
    """The endpoint `models`, and how it is reached."""

    local: Local
    key: str
    port: int

    def client(self, kind: str, key: str | None = None) -> Client:
        return Client(self, kind, key or self.key)


class Client:
    """One of Triton's clients with a key, called as the other is."""

    def __init__(self, served: Served, kind: str, key: str) -> None:
        self.headers = {"authorization": f"Bearer {key}"}
        ca = str(served.local.store.workspace.ca_certificate)
        self.own: Any
        if kind == "http":
            self.types: Any = tritonclient.http
            self.own = tritonclient.http.InferenceServerClient(
                f"localhost:{served.port}/endpoints/models", ssl=True, concurrency=16,
                ssl_context_factory=lambda: _context(ca),
            )
        else:
            self.types = tritonclient.grpc
            self.headers["inferay-endpoint"] = "models"
            self.own = tritonclient.grpc.InferenceServerClient(
                f"localhost:{served.port}", ssl=True, root_certificates=ca
            )

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.own, name)
        return lambda *args, **rest: call(*args, headers=dict(self.headers), **rest)

    def infer(self, model: str, arrays: dict[str, Any], **rest: Any) -> Any:
        """Return the client's result."""
        inputs = []
        for name, array in arrays.items():
            kind = {"f": "FP32", "i": "INT32", "O": "BYTES"}[array.dtype.kind]
            one = self.types.InferInput(name, list(array.shape), kind)
            one.set_data_from_numpy(array)
            inputs.append(one)
        return self.own.infer(model, inputs, headers=dict(self.headers), **rest)


def _context(ca: str) -> Any:
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    return context


@pytest.fixture
def served(local: Local) -> Served:
    key = local.endpoint("models")
    triton_models.linear(local.folder / "repository" / "linear", versions=(1, 2))
    triton_models.double(local.folder / "repository" / "double")
    triton_models.magic(local.folder / "repository" / "magika")
    (local.folder / "blue.yml").write_text(DEPLOYMENT)
    local.good("online-deployment create -f blue.yml --all-traffic")
    with local.http() as http:
        port = http.base_url.port
    assert port is not None
    return Served(local, key, port)


def test_tritons_clients_find_ask_and_are_refused(served: Served) -> None:
    x = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
    wanted = x @ triton_models.WEIGHTS[2] + 1
    bytes_ = numpy.full((1, 2048), 256, numpy.int32)
    bytes_[0, :11] = list(b"hello world")
    direct = onnxruntime.InferenceSession(triton_models.packaged()).run(None, {"bytes": bytes_})[0]
    for kind in CLIENTS:
        client = served.client(kind)
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("linear")
        assert not client.is_model_ready("linear", "1")
        numpy.testing.assert_allclose(client.infer("linear", {"x": x}).as_numpy("y"), wanted)
        found = client.infer("magika", {"bytes": bytes_}, request_id="mine")
        numpy.testing.assert_array_equal(found.as_numpy("target_label"), direct)
        response = found.get_response()
        assert (response["id"] if kind == "http" else response.id) == "mine"
        found = client.infer("double", {
            "VALUES": x[:, :2], "NAMES": numpy.array([["ä".encode()], [b"b"]], numpy.object_),
        })
        numpy.testing.assert_array_equal(found.as_numpy("DOUBLED"), x[:, :2] * 2)
        assert found.as_numpy("UPPER").ravel().tolist() == ["ä".encode(), b"B"]
        for model, arrays, said in (
            ("linear", {"y": x}, "unexpected inference input 'y'"),
            ("linear", {}, "missing inference input 'x' for model 'linear'; expected x FP32 [-1,"),
            ("linear", {"x": x[:, :2]}, "unexpected shape for input 'x'"),
            ("linear", {"x": x.astype(numpy.int32)}, "data-type is 'INT32', but model 'linear'"),
            ("linear", {"x": numpy.ones((5, 3), numpy.float32)}, "batch-size must be 1 to 4"),
            ("liner", {"x": x},
             "'liner' is not found; there is double, linear, magika; did you mean 'linear'?"),
            ("double", {"VALUES": -x[:, :2], "NAMES": numpy.full((2, 1), b"a", numpy.object_)},
             "a value is negative"),
            ("double", {"VALUES": 5000 + x[:, :2], "NAMES": numpy.full((2, 1), b"a", object)},
             "RuntimeError: a value is too large"),
        ):
            with pytest.raises(InferenceServerException) as refused:
                client.infer(model, arrays)
            assert said in str(refused.value), kind
        with pytest.raises(InferenceServerException):
            client.load_model("linear")
        with pytest.raises(InferenceServerException):
            served.client(kind, "wrong").infer("linear", {"x": x})
    logs = served.local.good("online-deployment get-logs -n blue -e models").out
    assert 'File "double/1/model.py"' in logs


def test_both_clients_are_told_the_same_of_a_model(served: Served) -> None:
    http, grpc = served.client("http"), served.client("grpc")
    assert http.get_server_metadata() == grpc.get_server_metadata(as_json=True)
    for model in ("linear", "double", "magika"):
        said = grpc.get_model_metadata(model, as_json=True)
        for one in (*said["inputs"], *said["outputs"]):
            one["shape"] = [int(size) for size in one["shape"]]   # protobuf's JSON has texts
        assert http.get_model_metadata(model) == said
        config = grpc.get_model_config(model, as_json=True)["config"]
        told = http.get_model_config(model)
        assert (told["name"], told["max_batch_size"]) == (config["name"], config["max_batch_size"])
    names = [one["name"] for one in http.get_model_repository_index()]
    assert names == [one.name for one in grpc.get_model_repository_index().models]
    assert names == ["double", "linear", "magika"]


def test_json_binary_and_compressed_bodies_say_the_same(served: Served) -> None:
    x = numpy.array([[1, 2, 3]], numpy.float32)
    client = served.client("http").own
    found = []
    for binary_in in (True, False):
        for binary_out in (True, False):
            for packed in (None, "gzip", "deflate"):
                one = tritonclient.http.InferInput("x", [1, 3], "FP32")
                one.set_data_from_numpy(x, binary_data=binary_in)
                output = tritonclient.http.InferRequestedOutput("y", binary_data=binary_out)
                headers = {"authorization": f"Bearer {served.key}"}   # the client adds its own
                found.append(client.infer(
                    "linear", [one], outputs=[output], headers=headers,
                    request_compression_algorithm=packed,
                ).as_numpy("y").tolist())
    assert found == [(x @ triton_models.WEIGHTS[2] + 1).tolist()] * 12


def test_the_models_own_body_is_scored_at_score_too(served: Served) -> None:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
    said = served.local.invoke("models", body)
    assert json.loads(said.out)["outputs"][0]["data"] == [33.0, 45.0]
    body["inputs"][0]["data"] = [1, 2, "3"]
    assert "no FP32" in served.local.invoke("models", body).err


def test_requests_in_flight_together_are_one_batch_and_each_has_its_rows(served: Served) -> None:
    client = served.client("grpc")

    def ask(number: int) -> Any:
        x = numpy.full((1, 3), number, numpy.float32)
        return client.infer("linear", {"x": x}).as_numpy("y")

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(200)))
    for number, one in enumerate(found):
        x = numpy.full((1, 3), number, numpy.float32)
        numpy.testing.assert_allclose(one, x @ triton_models.WEIGHTS[2] + 1)


def test_what_is_no_request_of_the_protocol_is_refused_in_its_own_form(
    served: Served
) -> None:
    headers = {"authorization": f"Bearer {served.key}"}
    with served.local.http() as http:
        for body in WRONG:
            answer = http.post(
                "/endpoints/models/v2/models/linear/infer", content=body, headers=headers
            )
            assert answer.status_code == 424, body
            assert answer.headers["ms-azureml-model-error-statuscode"] == "400"
            assert isinstance(answer.json()["error"], str)


def test_a_call_without_a_key_or_of_no_method_is_refused(served: Served) -> None:
    client = served.client("grpc")
    with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
        client.own.is_server_live(headers={"inferay-endpoint": "models"})
    with pytest.raises(InferenceServerException, match="ModelStatistics is not served here"):
        client.get_inference_statistics("linear")


def test_the_examples_own_client_is_answered(local: Local) -> None:
    folder = local.folder / "triton"
    shutil.copytree(EXAMPLE, folder)
    subprocess.run([sys.executable, "prepare.py"], cwd=folder, check=True)
    key = local.endpoint("files")
    local.good(f"online-deployment create -f {folder}/online-deployment.yml --all-traffic")
    uri = local.good("online-endpoint show -n files --query scoring_uri -o tsv").out.strip()
    done = subprocess.run(
        [sys.executable, "ask.py", uri, key, "ask.py", "spec.yml"], cwd=folder, check=True,
        text=True, stdout=subprocess.PIPE,
        env={**os.environ, "SSL_CERT_FILE": str(local.store.workspace.ca_certificate)},
    )
    assert done.stdout == "ask.py: python\nspec.yml: yaml\n"


def test_a_call_finds_its_endpoint_by_the_hosts_first_name_and_its_deployment_by_name(
    served: Served,
) -> None:
    # Certificates hold for NAME.HOST where HOST has a dot, which loopback's has not: gRPC's own
    # clients check that, so what they send is sent by another.
    headers = {"authorization": f"Bearer {served.key}", "host": "models.example.com"}
    message = service_pb2.ModelReadyRequest(name="linear").SerializeToString()
    with served.local.http() as http:
        answer = http.post(
            "/inference.GRPCInferenceService/ModelReady", headers=headers,
            content=struct.pack(">BI", 0, len(message)) + message,
        )
        assert service_pb2.ModelReadyResponse.FromString(answer.content[5:]).ready
        assert http.get("/v2/models/linear", headers=headers).json()["name"] == "linear"
    client = served.client("grpc").own
    headers = {"authorization": f"Bearer {served.key}", "inferay-endpoint": "models"}
    named = "azureml-model-deployment"
    assert client.is_model_ready("linear", headers={**headers, named: "blue"})
    for wrong in ({named: "none"}, {"inferay-endpoint": "another"}):
        with pytest.raises(InferenceServerException, match="404"):
            client.is_model_ready("linear", headers={**headers, **wrong})
