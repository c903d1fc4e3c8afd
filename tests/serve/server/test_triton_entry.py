"""A Triton repository's requests and answers, without an edge; what a real Triton does is meant."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from inferay.errors import InvalidInput
from inferay.serve.server.http import Answer, Request
from inferay.serve.server.oip_json import from_bytes
from inferay.serve.server.triton_entry import TritonEntry
from tests import triton_models

#: Tells what it was asked, writes into its input, and fails as it is told.
PROBE = """
import json
import numpy
import triton_python_backend_utils as pb_utils

pb_utils.Logger.log("imported", pb_utils.Logger.INFO)


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "X", "data_type": "TYPE_INT32", "dims": [-1]})
        for name in ("SAID", "SUM"):
            kind = "TYPE_STRING" if name == "SAID" else "TYPE_INT32"
            config.add_output({"name": name, "data_type": kind, "dims": [1]})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        return [self.answer(one) for one in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        x += 1
        if x[0] < 1:
            error = pb_utils.TritonError("no", -int(x[0]))
            return pb_utils.InferenceResponse(error=error)
        said = [request.request_id(), json.loads(request.parameters()),
                sorted(request.requested_output_names()), pb_utils.get_model_dir()[-7:]]
        return pb_utils.InferenceResponse([
            pb_utils.Tensor("SUM", x.sum(keepdims=True).astype("int32")),
            pb_utils.Tensor("SAID", numpy.array([json.dumps(said)], numpy.object_)),
        ])
"""


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonEntry]:
    folder = tmp_path_factory.mktemp("repository")
    triton_models.linear(folder / "linear")
    (folder / "probe" / "1").mkdir(parents=True)
    (folder / "probe" / "1" / "model.py").write_text(PROBE)
    found = TritonEntry(folder)
    yield found
    found.close()


def ask(
    entry: TritonEntry, path: str, body: Any = b"", *headers: tuple[bytes, bytes]
) -> tuple[int, Any]:
    """Return the status and the JSON of an answer."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = answered(entry, path, raw, *headers)
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body)


def answered(
    entry: TritonEntry, path: str, body: bytes, *headers: tuple[bytes, bytes]
) -> Answer:
    request = Request("POST", path, b"", list(headers), body)
    return entry.told(request) or entry.run(request)


def tensor(name: str, datatype: str, shape: Any, **rest: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **rest}


def infer(entry: TritonEntry, values: list[int], **rest: Any) -> tuple[int, Any]:
    one = tensor("X", "INT32", [len(values)], data=values)
    return ask(entry, "/v2/models/probe/infer", {"inputs": [one], **rest})


def test_a_python_model_sees_who_asks_for_what_and_may_write_into_its_input(
    entry: TritonEntry,
) -> None:
    status, found = infer(
        entry, [1, 2], id="mine", outputs=[{"name": "SAID"}],
        parameters={"own": 1, "priority": 3, "timeout": 9},
    )
    assert (status, [one["name"] for one in found["outputs"]]) == (200, ["SAID"])
    assert json.loads(found["outputs"][0]["data"][0]) == ["mine", {"own": 1}, ["SAID"], "probe/1"]
    raw = numpy.array([1, 2], "<i4").tobytes()
    head = json.dumps({"inputs": [
        tensor("X", "INT32", [2], parameters={"binary_data_size": 8})
    ]}).encode()
    length = (b"inference-header-content-length", str(len(head)).encode())
    status, found = ask(entry, "/v2/models/probe/infer", head + raw, length)
    assert [one["name"] for one in found["outputs"]] == ["SUM", "SAID"]   # as the model gave them
    assert found["outputs"][0]["data"] == [5]


@pytest.mark.parametrize(("code", "status"), [
    (0, 400), (1, 500), (2, 404), (3, 400), (4, 503), (5, 501), (6, 400), (7, 400),
])
def test_a_models_own_error_has_the_status_of_its_code(
    entry: TritonEntry, code: int, status: int
) -> None:
    assert infer(entry, [-1 - code]) == (status, {"error": "no"})


def test_a_body_may_be_the_bytes_of_the_only_input(entry: TritonEntry) -> None:
    raw = numpy.array([1, 2, 3], "<f4").tobytes()
    found = answered(
        entry, "/v2/models/linear/infer", raw, (b"inference-header-content-length", b"0")
    )
    length = int(dict(found.headers)[b"inference-header-content-length"])
    assert isinstance(found.body, bytes)
    numpy.testing.assert_allclose(
        numpy.frombuffer(found.body[length:], "<f4"),
        numpy.array([1, 2, 3]) @ triton_models.WEIGHTS[1] + 1,
    )
    for body in (raw[:-1], raw[:-4]):
        status, said = ask(
            entry, "/v2/models/linear/infer", body, (b"inference-header-content-length", b"0")
        )
        assert (status, "input 'x'" in said["error"]) == (400, True)


X = tensor("x", "FP32", [1, 3], data=[1, 2, 3])


@pytest.mark.parametrize("body", [
    {"inputs": [X | {"shape": [1, 2**62]}]}, {"inputs": [X | {"shape": [0, 2**70], "data": []}]},
    {"inputs": [X | {"shape": [1] * 70 + [3]}]}, {"inputs": [X | {"shape": [True, 3]}]},
    {"inputs": [X | {"data": [True, 1.5, 2]}]}, {"inputs": [X | {"data": "abc"}]},
    {"inputs": [X | {"data": [[1, 2], 3]}]}, {"inputs": [X | {"data": [1, 2, None]}]},
    {"inputs": [X | {"parameters": {"binary_data_size": 12}}]}, {"inputs": [X, X]},
    {"inputs": [X | {"parameters": {"shared_memory_region": "r"}}]},
    {"inputs": [X], "id": 7}, {"inputs": [X], "outputs": {}}, {"inputs": [X], "outputs": [1]},
    {"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]},
    {"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": 1}}]},
    {"inputs": [X], "outputs": [{"name": "z"}]}, {"inputs": [X], "parameters": [1]},
])
def test_what_is_wrong_in_a_body_is_told_and_never_guessed(
    entry: TritonEntry, body: dict[str, Any]
) -> None:
    status, found = ask(entry, "/v2/models/linear/infer", body)
    assert (status, list(found)) == (400, ["error"])


@pytest.mark.parametrize("length", [b"1", b"-1", b"9" * 5000, "²".encode("latin-1"), b"x"])
def test_a_length_that_is_none_is_refused(entry: TritonEntry, length: bytes) -> None:
    headers = (b"inference-header-content-length", length)
    assert ask(entry, "/v2/models/linear/infer", {"inputs": [X]}, headers)[0] == 400


@pytest.mark.parametrize("version", ["²", "\u0661", "9" * 5000, "2", "01", "x"])
@pytest.mark.parametrize("rest", ["", "/ready", "/infer"])
def test_a_version_that_is_not_served_is_not_found(
    entry: TritonEntry, version: str, rest: str
) -> None:
    status, found = ask(entry, f"/v2/models/linear/versions/{version}{rest}", {"inputs": [X]})
    assert (status, "unknown model" in found["error"]) == (404, True)


def test_a_packed_body_that_grows_too_large_or_is_cut_is_refused(entry: TritonEntry) -> None:
    for body in (gzip.compress(b" " * (101 << 20)), gzip.compress(b"{}")[:-4], b"{}"):
        status, found = ask(
            entry, "/v2/models/linear/infer", body, (b"content-encoding", b"gzip")
        )
        assert (status, "gzip" in found["error"]) == (400, True)


def test_texts_in_bytes_that_end_too_early_are_refused() -> None:
    whole = struct.pack("<I", 2) + b"ab"
    assert from_bytes("t", whole, "BYTES", [1]).tolist() == [b"ab"]
    for cut in range(1, len(whole)):
        with pytest.raises(InvalidInput, match="its bytes end within"):
            from_bytes("t", whole[:cut], "BYTES", [1])


def test_the_configuration_says_what_triton_fills_in(entry: TritonEntry) -> None:
    _, found = ask(entry, "/v2/models/linear/config")
    [group] = found["instance_group"]
    assert (group["name"], group["count"], group["kind"]) == ("linear_0", 1, "KIND_CPU")
    assert found["dynamic_batching"]["preferred_batch_size"] == [4]
    assert found["dynamic_batching"]["priority_levels"] == 0
    assert "optimization" in found
