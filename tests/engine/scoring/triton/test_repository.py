from __future__ import annotations

import sys
from pathlib import Path

import numpy
import pytest
from onnx import TensorProto, helper

from inferay.engine.scoring.flavors import check_model
from inferay.engine.scoring.triton.errors import ModelError
from inferay.engine.scoring.triton.pb_utils import TritonModelException
from inferay.engine.scoring.triton.repository import Repository
from inferay.errors import InvalidInput, NotFound, UserCodeError
from tests import triton_models

X = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)


@pytest.mark.parametrize(("policy", "served"), [
    ("", [3]), ("version_policy: { latest { num_versions: 2 } }", [2, 3]),
    ("version_policy: { all { } }", [1, 2, 3]),
    ("version_policy: { specific { versions: [ 3, 1 ] } }", [1, 3]),
])
def test_the_versions_that_the_policy_names_are_served(
    tmp_path: Path, policy: str, served: list[int]
) -> None:
    triton_models.linear(tmp_path / "linear", policy, versions=(1, 2, 3))
    repository = Repository(tmp_path)
    assert list(repository.models["linear"]) == served
    for version in served:
        found = repository.find("linear", str(version)).infer({"x": X})["y"]
        numpy.testing.assert_allclose(found, X @ triton_models.WEIGHTS[version] + 1)
    assert repository.find("linear").version == str(served[-1])


@pytest.mark.parametrize("version", ["7", "x", "-1"])
def test_a_version_that_is_not_served_is_not_found(tmp_path: Path, version: str) -> None:
    triton_models.linear(tmp_path / "linear")
    with pytest.raises(NotFound, match=f"'linear' version {version} is not found; there is 1"):
        Repository(tmp_path).find("linear", version)


def test_a_folder_that_is_no_repository_is_told_apart_from_one_of_its_models(
    tmp_path: Path,
) -> None:
    triton_models.linear(tmp_path / "repository" / "linear")
    check_model("triton", tmp_path / "repository")
    for folder, said in (
        (tmp_path / "repository" / "linear", "is one model of a Triton repository; give the fold"),
        (tmp_path / "nothing", "is no Triton model repository: expected MODEL/VERSION/model.onnx"),
        (tmp_path, "is no Triton model repository"),
    ):
        with pytest.raises(InvalidInput, match=said):
            check_model("triton", folder)


def test_a_truncated_model_is_named_with_what_onnx_runtime_says(tmp_path: Path) -> None:
    folder = triton_models.linear(tmp_path / "linear")
    path = folder / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserCodeError, match=r"model linear: 1/model.onnx cannot be loaded by ONNX"):
        Repository(tmp_path)


def test_texts_and_other_shapes_than_the_models_own_go_in_and_out(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["s"], ["t"]), helper.make_node("Neg", ["a"], ["b"])], "g",
        [helper.make_tensor_value_info("s", TensorProto.STRING, ["n"]),
         helper.make_tensor_value_info("a", TensorProto.INT64, ["n", 4])],
        [helper.make_tensor_value_info("t", TensorProto.STRING, ["n"]),
         helper.make_tensor_value_info("b", TensorProto.INT64, ["n", 4])],
    )
    triton_models.write(tmp_path / "m" / "1", graph)
    (tmp_path / "m" / "config.pbtxt").write_text("""
        max_batch_size: 8
        input [ { name: "s" data_type: TYPE_STRING dims: [ 1 ] reshape { shape: [ ] } },
                { name: "a" data_type: TYPE_INT64 dims: [ 2, 2 ] reshape { shape: [ 4 ] } } ]
        output [ { name: "t" data_type: TYPE_STRING dims: [ 1 ] reshape { shape: [ ] } },
                 { name: "b" data_type: TYPE_INT64 dims: [ 2, 2 ] reshape { shape: [ 4 ] } } ]
    """)
    texts = numpy.array([["ü".encode()], [b"v"]], numpy.object_)
    numbers = numpy.arange(8).reshape(2, 2, 2)
    found = Repository(tmp_path).only().infer({"s": texts, "a": numbers})
    assert found["t"].tolist() == texts.tolist()
    numpy.testing.assert_array_equal(found["b"], -numbers)


def test_of_several_models_one_has_to_be_chosen(tmp_path: Path) -> None:
    for name in ("a", "b"):
        triton_models.linear(tmp_path / name)
    repository = Repository(tmp_path)
    assert repository.only("b").name == "b"
    with pytest.raises(InvalidInput, match="models a, b; say which one with environment_variables"):
        repository.only()


@pytest.mark.parametrize(("code", "said"), [
    ("import nosuchpackage", "1/model.py cannot be imported: ModuleNotFoundError: No module named"),
    ("x = 1", "defines no class TritonPythonModel"),
    ("class TritonPythonModel:\n def initialize(self, args): 1 / 0\n"
     " def execute(self, requests): pass", r"initialize\(\) raised: ZeroDivisionError"),
])
def test_a_python_model_that_cannot_start_says_why(tmp_path: Path, code: str, said: str) -> None:
    folder = triton_models.double(tmp_path / "double")
    (folder / "1" / "model.py").write_text(code)
    with pytest.raises((UserCodeError, InvalidInput), match=said):
        Repository(tmp_path)


def test_each_python_model_has_its_own_neighbours(tmp_path: Path) -> None:
    for name in ("first", "second"):
        folder = tmp_path / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "neighbour.py").write_text(f"NAME = '{name}'")
        (folder / "1" / "model.py").write_text(
            "import numpy, neighbour\nimport triton_python_backend_utils as pb_utils\n"
            "class TritonPythonModel:\n"
            " def execute(self, requests):\n"
            "  said = numpy.array([neighbour.NAME], object)\n"
            "  return [pb_utils.InferenceResponse([pb_utils.Tensor('S', said)])]\n"
        )
        (folder / "config.pbtxt").write_text(
            'input [{name: "X" data_type: TYPE_FP32 dims: [1]}] '
            'output [{name: "S" data_type: TYPE_STRING dims: [1]}]'
        )
    repository = Repository(tmp_path)
    for name in ("first", "second"):
        found = repository.find(name).infer({"X": X[0, :1]})
        assert found["S"].tolist() == [name]


@pytest.mark.parametrize(("answer", "said"), [
    ("None", "has to return a list with a response for each"),
    ("[1]", "returned a response of type int; expected an InferenceResponse"),
    ("[pb_utils.InferenceResponse([pb_utils.Tensor('DOUBLED', numpy.ones((1, 2), complex))])]",
     "the output 'DOUBLED' is of type complex128, which has no name"),
    ("[pb_utils.InferenceRequest().exec()]", "a model that calls another"),
])
def test_what_a_python_model_answers_is_looked_at(tmp_path: Path, answer: str, said: str) -> None:
    folder = triton_models.double(tmp_path / "double")
    (folder / "1" / "model.py").write_text(
        "import numpy\nimport triton_python_backend_utils as pb_utils\nclass TritonPythonModel:\n"
        f" def execute(self, requests): return {answer}\n"
    )
    inputs = {"VALUES": X[:1, :2], "NAMES": numpy.full((1, 1), b"a", numpy.object_)}
    with pytest.raises((ModelError, TritonModelException), match=said):
        Repository(tmp_path).only().infer(inputs, ["DOUBLED"])


@pytest.mark.parametrize(("module", "package"), [
    ("onnxruntime", "onnxruntime"), ("tritonclient.grpc", r"tritonclient\[grpc\]"),
])
def test_a_package_that_is_missing_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    triton_models.linear(tmp_path / "linear")
    monkeypatch.setitem(sys.modules, module, None)
    said = rf"needs the package '{package}', .*pip install 'inferay\[triton\]'"
    with pytest.raises(UserCodeError, match=said) as missing:
        Repository(tmp_path)
    assert missing.value.code == "PackageMissing"
