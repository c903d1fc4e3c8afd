"""Triton model repositories: an ONNX model, one of a package, and a Python one."""

from __future__ import annotations

import shutil
from pathlib import Path

import magika
import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

#: A Python model: what it is asked, doubled, and the text of each name in capitals.
DOUBLE = '''
import json

import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        output = pb_utils.get_output_config_by_name(config, "DOUBLED")
        self.dtype = pb_utils.triton_string_to_numpy(output["data_type"])
        self.calls = 0

    def execute(self, requests):
        self.calls += 1
        responses = []
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "VALUES").as_numpy()
            names = pb_utils.get_input_tensor_by_name(request, "NAMES").as_numpy()
            if (values < 0).any():
                error = pb_utils.TritonError("a value is negative")
                responses.append(pb_utils.InferenceResponse(output_tensors=[], error=error))
                continue
            if (values > 1000).any():
                raise RuntimeError("a value is too large")
            upper = numpy.array([one.upper() for one in names.ravel()], numpy.object_)
            responses.append(pb_utils.InferenceResponse(output_tensors=[
                pb_utils.Tensor("DOUBLED", (values * 2).astype(self.dtype)),
                pb_utils.Tensor("UPPER", upper.reshape(names.shape)),
            ]))
        return responses
'''

DOUBLE_CONFIG = """
name: "double"
backend: "python"
max_batch_size: 8
input [
  { name: "VALUES" data_type: TYPE_FP32 dims: [ 2 ] },
  { name: "NAMES" data_type: TYPE_STRING dims: [ 1 ] }
]
output [
  { name: "DOUBLED" data_type: TYPE_FP32 dims: [ 2 ] },
  { name: "UPPER" data_type: TYPE_STRING dims: [ 1 ] }
]
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching { }
"""

#: The weights of `linear`, by version: it returns x W + 1.
WEIGHTS = {
    version: numpy.arange(6, dtype=numpy.float32).reshape(3, 2) * version for version in (1, 2, 3)
}


def linear(folder: Path, config: str | None = None, versions: tuple[int, ...] = (1,)) -> Path:
    """Make an ONNX model `folder.name` with any batch: `x` FP32 [3] to `y` FP32 [2]."""
    for version in versions:
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["m"]),
             helper.make_node("Add", ["m", "b"], ["y"])],
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
            [numpy_helper.from_array(WEIGHTS[version], "w"),
             numpy_helper.from_array(numpy.ones(2, numpy.float32), "b")],
        )
        write(folder / str(version), graph)
    if config is not None:
        (folder / "config.pbtxt").write_text(config)
    return folder


def write(version: Path, graph: onnx.GraphProto) -> None:
    """Write a graph as the model of a version's folder."""
    version.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, version / "model.onnx")


def double(folder: Path) -> Path:
    """Make the Python model `double`."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(DOUBLE)
    (folder / "config.pbtxt").write_text(DOUBLE_CONFIG)
    return folder


def packaged() -> Path:
    """Return the ONNX model of a package: magika's, which tells a file's type by its bytes."""
    return next(Path(magika.__file__).parent.rglob("*.onnx"))


def magic(folder: Path) -> Path:
    """Make the model `magika` of the package's file, without a configuration."""
    (folder / "1").mkdir(parents=True)
    shutil.copyfile(packaged(), folder / "1" / "model.onnx")
    return folder
