"""ONNX models over the Open Inference Protocol, beside MLServer and a bare call of ONNX Runtime.

Two models, as JSON over HTTP: a small classifier of four numbers, and magika's, which tells a
file's type by 2,048 of its bytes. MLServer runs both in a runtime of its own, which calls ONNX
Runtime too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, Line, Served
from benchmarks.serving import ours, peers
from benchmarks.serving.load import Target, drive
from inferay.processes import free_ports

#: Calls whose median is the bare one.
CALLS = 2000

#: At c=16 beside MLServer, and what the whole way may add at c=1.
AIM = 2.0
ADDED = "at most 1 ms"


def make_repository(folder: Path) -> dict[str, dict[str, Any]]:
    """Make a repository of both models; return a request's body for each."""
    import magika
    import numpy
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    found, labels = load_iris(return_X_y=True)
    fitted = LogisticRegression(max_iter=1000).fit(found, labels)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["s"]),
         helper.make_node("Softmax", ["s"], ["p"], axis=1)], "iris",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(fitted.coef_.T.astype(numpy.float32), "w"),
         numpy_helper.from_array(fitted.intercept_.astype(numpy.float32), "b")],
    )
    for name in ("iris", "magika"):
        (folder / name / "1").mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        folder / "iris" / "1" / "model.onnx",
    )
    file = next(Path(magika.__file__).parent.rglob("*.onnx"))
    shutil.copyfile(file, folder / "magika" / "1" / "model.onnx")
    text = Path(__file__).read_bytes()[:2048]
    return {
        "iris": _body("x", "FP32", [2, 4], [5.1, 3.5, 1.4, 0.2, 6.7, 3.0, 5.2, 2.3]),
        "magika": _body("bytes", "INT32", [1, 2048], list(text) + [256] * (2048 - len(text))),
    }


def measure(folder: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Measure the edge beside MLServer, both with the same file, body and ONNX Runtime."""
    from benchmarks import online as table

    repository = folder / "repository"
    for name, body in make_repository(repository).items():
        file = repository / name / "1" / "model.onnx"
        bare_ms = _bare_ms(file, body)
        only = folder / f"only-{name}"
        shutil.copytree(repository / name, only / name)
        sent = json.dumps(body).encode()
        settings = {
            f"parallel_workers {workers}, no debug log, onnxruntime in a runtime":
                partial(_mlserver, file, sent, workers)
            for workers in (0, 2)
        }
        best = _best(settings, name, folder)
        for instances in (1, 2):
            own = folder / f"ours-{name}-{instances}"
            own.mkdir()
            with ours.serving(own, {name: only}, instances=instances) as stage, peers.running(
                "mlserver", settings[best], name, folder
            ) as theirs:
                stage.publish(table.MIRROR_PERCENT)
                mine = stage.target(name, sent, None, path=f"v2/models/{name}/infer")
                _check_equal(stage, mine, theirs)
                for count in table.CONNECTIONS:
                    loads = table.in_turn([mine, theirs], count, options, folder)
                    yield Served(
                        f"OIP {name}, c={count}, instances: {instances}", "mlserver", best,
                        AIM if count == 16 else None, table.loads_of(loads["inferay"]),
                        table.loads_of(loads["mlserver"]),
                    )
                    if count == 1:
                        p50_ms = statistics.median(one.p50_ms for one in loads["inferay"])
                        yield Figure(
                            f"OIP {name}, added p50, instances: {instances}",
                            "at c=1 through the edge with TLS and key, 10 % mirrored, over a bare "
                            f"call of ONNX Runtime ({bare_ms:.2f} ms), medians",
                            f"{p50_ms - bare_ms:.2f} ms", ADDED,
                        )


def _best(settings: Mapping[str, peers.Setting], name: str, folder: Path) -> str:
    """Return which of MLServer's settings answers most."""
    rates: dict[str, float] = {}
    for what, setting in settings.items():
        try:
            with peers.running("mlserver", setting, name, folder) as target:
                drive(target, peers.CHOICE_CONNECTIONS, 1, folder)   # warm
                rates[what] = drive(
                    target, peers.CHOICE_CONNECTIONS, peers.CHOICE_S, folder
                ).requests_per_s
        except peers.CannotRun as error:
            print(f"mlserver, {what}: {error}", file=sys.stderr, flush=True)
    return max(rates, key=lambda what: rates[what])


def _body(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}]}


def _bare_ms(file: Path, body: dict[str, Any]) -> float:
    import numpy
    import onnxruntime

    [tensor] = body["inputs"]
    dtype = {"FP32": numpy.float32, "INT32": numpy.int32}[tensor["datatype"]]
    array = numpy.array(tensor["data"], dtype).reshape(tensor["shape"])
    session = onnxruntime.InferenceSession(str(file))
    times = []
    for _ in range(CALLS):
        began_s = time.perf_counter()
        session.run(None, {tensor["name"]: array})
        times.append(time.perf_counter() - began_s)
    return statistics.median(times) * 1e3


def _mlserver(
    file: Path, body: bytes, workers: int, model: str, folder: Path, program: peers.Program
) -> peers.Server:
    http, grpc, metrics = free_ports(3)
    (folder / "settings.json").write_text(json.dumps({
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics,
        "debug": False, "parallel_workers": workers,
    }))
    (folder / "model-settings.json").write_text(json.dumps({
        "name": model, "implementation": f"{peers.APPS}.mlserver_onnx.Onnx",
    }))
    url = f"http://127.0.0.1:{http}/v2/models/{model}/infer"
    return peers.Server(
        [program("mlserver"), "start", str(folder)], Target("mlserver", url, body),
        {"MODEL_FILE": str(file)},
    )


def _check_equal(stage: ours.Ours, mine: Target, theirs: Target) -> None:
    """End the run where the two do not answer the same."""
    import httpx

    with stage.edge.http() as client:
        found = client.post(mine.url, content=mine.body, headers=mine.headers).json()
    other = httpx.post(
        theirs.url, content=theirs.body, headers={"Content-Type": "application/json"}
    ).json()
    pairs = zip(found["outputs"], other["outputs"], strict=True)
    for one, two in pairs:
        same = (one["name"], one["datatype"], one["shape"]) == (
            two["name"], two["datatype"], two["shape"]
        )
        if not same or any(
            abs(a - b) > 1e-6 for a, b in zip(one["data"], two["data"], strict=True)
        ):
            raise RuntimeError(f"the answers differ: {str(one)[:200]} and {str(two)[:200]}")
