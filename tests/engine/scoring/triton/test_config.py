from __future__ import annotations

from pathlib import Path

import pytest

from inferay.engine.scoring.triton.config import Batching, config_of, read_message
from inferay.engine.scoring.triton.model import TritonModel
from inferay.errors import InferayError, InvalidInput
from tests import triton_models

FULL = """
name: "linear"
platform: "onnxruntime_onnx"
max_batch_size: 16
input [ { name: "x" data_type: TYPE_FP32 format: FORMAT_NONE dims: [ 3 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" } ]
version_policy: { specific { versions: [ 1 ] } }
instance_group [ { count: 2 kind: KIND_CPU }, { count: 1 kind: KIND_CPU } ]
dynamic_batching { preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 500 }
optimization { graph { level: 1 } }
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: "execution_mode" value: { string_value: "1" } }
parameters { key: "enable_mem_arena" value: { string_value: "0" } }
"""


def test_what_a_configuration_says_is_kept(tmp_path: Path) -> None:
    folder = triton_models.linear(tmp_path / "linear", FULL)
    config = TritonModel(folder, "1").config
    assert (config.backend, config.file, config.rows_max) == ("onnxruntime", "model.onnx", 16)
    assert config.batching == Batching((4, 8), 0.0005)
    assert (config.instances, config.device) == (3, "cpu")
    assert [(one.name, one.datatype, one.dims) for one in config.inputs] == [("x", "FP32", (3,))]
    told = config.as_dict()
    assert told["input"][0]["dims"] == [3]
    assert told["dynamic_batching"]["max_queue_delay_microseconds"] == 500
    assert told["instance_group"][0]["kind"] == "KIND_CPU"


def test_what_an_onnx_model_says_itself_need_not_be_configured(tmp_path: Path) -> None:
    for name, text, rows_max in (
        ("none", None, 4), ("empty", "", 4), ("part", "max_batch_size: 32", 32),
        ("own", 'input [{name: "x" data_type: TYPE_FP32 dims: [-1, 3]}]', 0),
        ("output", 'output [{name: "y" data_type: TYPE_FP32 dims: [2]}]', 4),
    ):
        config = TritonModel(triton_models.linear(tmp_path / name, text), "1").config
        assert (config.rows_max, config.backend) == (rows_max, "onnxruntime"), name
        rows = () if rows_max else (-1,)
        assert [one.dims for one in (*config.inputs, *config.outputs)] == [(*rows, 3), (*rows, 2)]
        assert (config.batching is not None) == (rows_max == 4)


@pytest.mark.parametrize(("text", "said"), [
    ("max_batch_size: x", "config.pbtxt cannot be read: 1:"),
    ("no_such_field: 1", 'config.pbtxt cannot be read: .*no field named "no_such_field"'),
    ('name: "other"', "name 'other' has to be its folder's name"),
    ('backend: "tensorrt"', "the backend 'tensorrt' is not served here; there are onnxruntime, py"),
    ('platform: "ensemble"', "the backend 'ensemble' is not served here"),
    ("sequence_batching { }", "'sequence_batching' is not served here; leave it out"),
    ("ensemble_scheduling { }", "'ensemble_scheduling' is not served here"),
    ('model_warmup [ { name: "w" } ]', "'model_warmup' is not served here"),
    ("response_cache { enable: true }", "'response_cache.enable' is not served here"),
    ("model_transaction_policy { decoupled: true }", "'model_transaction_policy.decoupled' is not"),
    ("dynamic_batching { priority_levels: 2 }", "'dynamic_batching.priority_levels' is not"),
    ('input [ { name: "x" data_type: TYPE_FP32 dims: [3] allow_ragged_batch: true } ]',
     "'input.allow_ragged_batch' is not served here"),
    ("instance_group [ { kind: KIND_GPU } ]", "KIND_GPU needs the package 'onnxruntime-gpu'"),
    ("instance_group [ { kind: KIND_MODEL } ]", "has to be of one kind"),
    ("optimization { execution_accelerators { } }",
     "'optimization.execution_accelerators' is not served here"),
    ("optimization { graph { level: 7 } }", "level has to be -1, 0, 1 or 2"),
    ('parameters { key: "gpu_mem_limit" value: { string_value: "1" } }',
     "the parameter 'gpu_mem_limit' is not served here; there are enable_mem_arena, "),
    ("max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 5 ] }",
     "preferred_batch_size has to be 1 to 4"),
    ('default_model_filename: "../x.onnx"', "default_model_filename has to be the name of a file"),
    ('default_model_filename: "x.onnx"', "there is no file 1/x.onnx"),
    ('input [ { name: "z" data_type: TYPE_FP32 dims: [3] } ]',
     "the model has no input 'z'; it has x"),
    ('output [ { name: "y" data_type: TYPE_INT32 dims: [2] } ]',
     "'y' is INT32, and the model's is FP32"),
    ('max_batch_size: 2 input [ { name: "x" data_type: TYPE_FP32 dims: [4] } ]',
     r"'x' has the shape \[-1, 4\] with its batch, and the model's is \[-1, 3\]"),
    ('input [ { name: "x" data_type: TYPE_BF16 dims: [3] } ]', "'x' is BF16, and the model's is"),
])
def test_what_is_not_honoured_is_refused_by_its_name(
    tmp_path: Path, text: str, said: str
) -> None:
    folder = triton_models.linear(tmp_path / "linear", text)
    with pytest.raises(InferayError, match=f"the Triton model linear: .*{said}"):
        TritonModel(folder, "1")


def test_a_python_model_has_to_say_its_inputs_and_outputs(tmp_path: Path) -> None:
    folder = triton_models.double(tmp_path / "double")
    (folder / "config.pbtxt").write_text('backend: "python"')
    with pytest.raises(InvalidInput, match=r"config.pbtxt has no input; the python backend needs"):
        config_of(folder, read_message(folder))
