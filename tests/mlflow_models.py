"""Tiny trained models of MLflow's flavours, each with what its own library predicts."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: Written into the model's folder as a code path of the pyfunc model.
HELPER = '''
import mlflow.pyfunc


class Weighed(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        factor = (params or {}).get("factor", 1.0)
        return [float(row.sum()) * factor for row in model_input.to_numpy()]
'''


@dataclass(frozen=True)
class Trained:
    """A saved model.

    Attributes:
        folder: Where MLflow saved it.
        table: What it is asked.
        expected: What the library's own `predict` answers, one value for each row.
    """

    folder: Path
    table: pd.DataFrame
    expected: list[Any]


def table(dtype: str = "float64", rows: int = 60) -> pd.DataFrame:
    values = np.random.default_rng(7).normal(size=(rows, 4)).round(3)
    return pd.DataFrame(values.astype(dtype), columns=["a", "b", "c", "d"])


def _labels(rows: pd.DataFrame) -> Any:
    return (rows["a"] + rows["b"] > 0).astype("int64").to_numpy()


def sklearn(folder: Path, *, is_signed: bool = True) -> Trained:
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    rows = table()
    model = LogisticRegression().fit(rows, _labels(rows))
    found = model.predict(rows)
    signature = infer_signature(rows, found) if is_signed else None
    mlflow.sklearn.save_model(model, folder, signature=signature, pip_requirements=[])
    return Trained(folder, rows, found.tolist())


def xgboost(folder: Path) -> Trained:
    import mlflow.xgboost
    from mlflow.models import infer_signature
    from xgboost import XGBRegressor

    rows = table()
    model = XGBRegressor(n_estimators=3, max_depth=2, n_jobs=1).fit(rows, rows["a"])
    found = model.predict(rows)
    mlflow.xgboost.save_model(
        model, folder, signature=infer_signature(rows, found), pip_requirements=[]
    )
    return Trained(folder, rows, found.tolist())


def lightgbm(folder: Path) -> Trained:
    import mlflow.lightgbm
    from lightgbm import LGBMRegressor
    from mlflow.models import infer_signature

    rows = table()
    model = LGBMRegressor(n_estimators=3, n_jobs=1, verbose=-1).fit(rows, rows["a"])
    found = model.predict(rows)
    mlflow.lightgbm.save_model(
        model, folder, signature=infer_signature(rows, found), pip_requirements=[]
    )
    return Trained(folder, rows, found.tolist())


def pytorch(folder: Path) -> Trained:
    import mlflow.pytorch
    import torch
    from mlflow.models import infer_signature

    torch.manual_seed(1)
    rows = table("float32")
    model = torch.nn.Linear(4, 1)
    with torch.no_grad():
        found = model(torch.tensor(rows.to_numpy())).numpy()
    mlflow.pytorch.save_model(
        model, folder, signature=infer_signature(rows, found), pip_requirements=[],
        serialization_format="pickle",
    )
    return Trained(folder, rows, found[:, 0].tolist())


def pyfunc(folder: Path) -> Trained:
    import sys

    import mlflow.pyfunc
    from mlflow.models import infer_signature

    rows = table()
    code = folder.parent / "weighed_helper.py"
    code.write_text(HELPER)
    sys.path.insert(0, str(folder.parent))
    try:
        weighed_helper = importlib.import_module("weighed_helper")
    finally:
        sys.path.remove(str(folder.parent))
    found = [float(row.sum()) for row in rows.to_numpy()]
    mlflow.pyfunc.save_model(
        folder, python_model=weighed_helper.Weighed(), code_paths=[str(code)], pip_requirements=[],
        signature=infer_signature(rows, found, params={"factor": 1.0}),
    )
    del sys.modules["weighed_helper"]   # what is loaded is the copy in the model's folder
    return Trained(folder, rows, found)


def onnx(folder: Path) -> Trained:
    import mlflow.onnx
    import onnxruntime
    from mlflow.models import infer_signature
    from onnx import TensorProto, helper, numpy_helper

    rows = table("float32")
    weights = numpy_helper.from_array(np.arange(4, dtype="float32").reshape(4, 1), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])], [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = session.run(None, {"x": rows.to_numpy()})[0]
    mlflow.onnx.save_model(
        model, folder, signature=infer_signature(rows, {"y": found[:, 0]}), pip_requirements=[]
    )
    return Trained(folder, rows, found[:, 0].tolist())


def typed(folder: Path) -> Trained:
    """Return a model of several types of inputs and outputs."""
    import mlflow.pyfunc
    from mlflow.types import ColSpec, Schema

    class Described(mlflow.pyfunc.PythonModel):   # type: ignore[misc]   # it has no types
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return pd.DataFrame({
                "text": model_input["id"] + ":" + model_input["n"].astype(str),
                "sum": model_input["n"] + model_input["x"],
            })

    rows = pd.DataFrame({
        "id": ["007", "1,5", 'a"b'], "n": np.array([1, 2, 3], "int32"),
        "x": np.array([0.5, 0.25, 1.0], "float32"),
    })
    signature = mlflow.models.ModelSignature(Schema([
        ColSpec("string", "id"), ColSpec("integer", "n"), ColSpec("float", "x"),
        ColSpec("boolean", "flag", required=False),
    ]))
    mlflow.pyfunc.save_model(
        folder, python_model=Described(), signature=signature, pip_requirements=[]
    )
    expected = [
        {"text": "007:1", "sum": 1.5}, {"text": "1,5:2", "sum": 2.25}, {"text": 'a"b:3', "sum": 4.0}
    ]
    return Trained(folder, rows, expected)


def brightness(folder: Path) -> Trained:
    """Return a model of images: of each the mean of its channels."""
    import mlflow.pyfunc
    from mlflow.types import Schema, TensorSpec

    class Brightness(mlflow.pyfunc.PythonModel):   # type: ignore[misc]   # it has no types
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input.mean(axis=(1, 2))

    signature = mlflow.models.ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, 2, 2, 3))])
    )
    mlflow.pyfunc.save_model(
        folder, python_model=Brightness(), signature=signature, pip_requirements=[]
    )
    return Trained(folder, pd.DataFrame(), [])


#: By the flavour's name.
FLAVORS: dict[str, Callable[[Path], Trained]] = {
    "sklearn": sklearn, "xgboost": xgboost, "lightgbm": lightgbm, "pytorch": pytorch,
    "pyfunc": pyfunc, "onnx": onnx,
}
