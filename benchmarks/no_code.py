"""MLflow models without code, beside what one would use without inferay.

    w8              batch: one Parquet file beside plain pandas on one core, and beside
                    `mlflow models predict` (as CSV, which is what that takes)
    no_code_mlflow  online: through the edge, beside `mlflow models serve`

    cold_mlflow     online: the parts of a replica's start, in an environment that is built

`python -m benchmarks.no_code MODEL TABLE OUTPUT` is the plain one: it loads the model, says
`ready`, waits for a line, scores the table, writes its rows, and says how long that took.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import clusters, whole
from benchmarks.report import Figure, Line, Plain
from benchmarks.works import COLUMNS, Job

ROWS = 1_000_000

#: The rows of a request; the model's answer to them is 0 and 2.
SPLIT: dict[str, Any] = {
    "columns": ["sepal length", "sepal width", "petal length", "petal width"],
    "data": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]],
}


def save_iris(folder: Path) -> Path:
    """Save a scikit-learn model with its signature, as MLflow does."""
    import mlflow.sklearn
    import pandas
    from mlflow.models import infer_signature
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    found, labels = load_iris(return_X_y=True)
    table = pandas.DataFrame(found, columns=SPLIT["columns"])
    fitted = LogisticRegression(max_iter=1000).fit(table, labels)
    mlflow.sklearn.save_model(
        fitted, str(folder / "iris"), signature=infer_signature(table, fitted.predict(table)),
        serialization_format="cloudpickle",
    )
    return folder / "iris"


def make_table(folder: Path, rows: int) -> Job:
    """Write one Parquet file of eight columns, and a scikit-learn model that scores it."""
    import mlflow.sklearn
    import numpy as np
    import pandas
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    folder.mkdir()
    names = [f"x{column}" for column in range(COLUMNS)]
    values = np.random.default_rng(7).random((rows, COLUMNS)).round(4)
    table = pandas.DataFrame(values, columns=names)
    table.to_parquet(folder / "table.parquet", row_group_size=125_000, index=False)
    table.to_csv(folder / "table.csv", index=False)
    sample = table[:2_000]
    fitted = LogisticRegression().fit(sample, sample.sum(axis=1) > COLUMNS / 2)
    mlflow.sklearn.save_model(
        fitted, str(folder / "model"), signature=infer_signature(sample, fitted.predict(sample)),
        serialization_format="cloudpickle",
    )
    return Job("", "mlflow", str(folder / "table.parquet"), rows, model_dir=str(folder / "model"))


def w8(folder: Path, repetitions: int, scale: float) -> Iterator[Line]:
    """Measure the engine beside pandas on one core, and whole jobs beside MLflow's own."""
    job = make_table(folder / "input", int(ROWS * scale))
    ours_s, plain_s, starts_s, mlflow_s, walls_s = [], [], [], [], []
    with clusters.ray_cluster(folder):
        for _ in range(repetitions):
            plain_s.append(_plain(job, folder / "rows.csv"))
            run = whole.measure("engine", job, folder / "job")
            ours_s.append(run.facts["seconds"])
            starts_s.append(run.wall_s - run.facts["seconds"])
            walls_s.append(whole.measure("ours", job, folder / "job").wall_s)
            mlflow_s.append(_mlflow_predict(job, folder / "predictions.json"))
    what = f"{job.items:,} rows of Parquet, MLflow sklearn model, beside pandas on one core"
    yield Plain("w8", what, 0.5, ours_s, plain_s, starts_s)
    ratio = statistics.median(mlflow_s) / statistics.median(walls_s)
    yield Figure(
        "w8, `mlflow models predict`",
        f"the same rows as CSV, whole processes: MLflow's time / ours, medians of {repetitions} "
        f"({statistics.median(mlflow_s):.1f} s and {statistics.median(walls_s):.1f} s)",
        f"{ratio:.2f}", "at least 1",
    )


def _plain(job: Job, output: Path) -> float:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.no_code", job.model_dir, job.input, str(output)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, **ONE_CORE},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    found, _ = process.communicate("go\n")
    return float(found)


#: Of numerical libraries, so that one core is one core.
ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def _mlflow_predict(job: Job, output: Path) -> float:
    from benchmarks.serving.peers import program_of

    table = Path(job.input).with_suffix(".csv")
    program = Path(program_of("mlflow", "mlflow"))
    began_s = time.monotonic()
    subprocess.run(
        [str(program), "models", "predict", "-m", job.model_dir, "-i", str(table), "-o",
         str(output), "-t", "csv", "--env-manager", "local"],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
    )
    return time.monotonic() - began_s


def online(folder: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Measure the edge beside `mlflow models serve`, each at the best of its settings."""
    from benchmarks import online as table
    from benchmarks.report import Served
    from benchmarks.serving import ours, peers
    from benchmarks.serving.load import Target, drive

    model = save_iris(folder)
    body = json.dumps({"dataframe_split": SPLIT}).encode()
    expected: Any = {"predictions": [0, 2]}

    def serve(_: str, __: Path, program: peers.Program, *, workers: int) -> peers.Server:
        command, url = peers.mlflow_server(model, program, workers)
        return peers.Server(command, Target("mlflow", url, body, {}, expected), {
            "MLFLOW_DISABLE_TELEMETRY": "true",
        })

    settings = {
        f"{workers} workers, --env-manager local": partial(serve, workers=workers)
        for workers in (1, 2)
    }
    rates: dict[str, float] = {}
    for what, setting in settings.items():
        with peers.running("mlflow", setting, "iris", folder) as target:
            drive(target, peers.CHOICE_CONNECTIONS, 1, folder)
            rates[what] = drive(
                target, peers.CHOICE_CONNECTIONS, peers.CHOICE_S, folder
            ).requests_per_s
    best = max(rates, key=lambda what: rates[what])
    for instances in (1, 2):
        own = folder / f"ours{instances}"
        own.mkdir()
        with ours.serving(own, {"iris": model}, instances=instances) as stage:
            stage.publish(table.MIRROR_PERCENT)
            mine = stage.target("iris", body, expected["predictions"])
            with peers.running("mlflow", settings[best], "iris", folder) as theirs:
                for count in table.CONNECTIONS:
                    found = table.in_turn([mine, theirs], count, options, folder)
                    yield Served(
                        f"MLflow sklearn model, c={count}, instances: {instances}", "mlflow", best,
                        3.0 if count == 16 else None, table.loads_of(found["inferay"]),
                        table.loads_of(found["mlflow"]),
                    )


#: What a replica does from its first line on; each step says when it ended.
COLD = """
import sys, time
def tell(what): print(what, time.time(), flush=True)
tell("interpreter")
from pathlib import Path
from inferay.engine.scoring.environments import EnvironmentSpec, ensure
python = ensure(EnvironmentSpec.from_word(sys.argv[1]))
tell("environment")
if str(python) != sys.executable:
    import os
    os.execv(python, [str(python), *sys.orig_argv[1:]])
import inferay.serve.server.hosting, inferay.serve.server.mlflow_entry
tell("server")
import mlflow.pyfunc
tell("mlflow")
from inferay.engine.scoring.mlflow_model import MlflowModel
MlflowModel(Path(sys.argv[2]))
tell("model")
"""

#: What another step of it is called in the table, in their order.
PARTS = {
    "interpreter": "process", "environment": "environment", "server": "imports of the server",
    "mlflow": "import of mlflow", "model": "load of the model",
}


def cold(folder: Path, options: argparse.Namespace) -> Iterator[Line]:
    """Measure the parts of a start, with the model's own pins in an overlay that is built."""
    from inferay.engine.scoring.environments import ensure
    from inferay.engine.scoring.environments.overlay import PLACE
    from inferay.engine.scoring.environments.spec import of_mlflow_model

    model = save_iris(folder)
    with open(model / "requirements.txt", "a") as file:
        file.write("\nsix==1.16.0\n")   # so that it is not the cluster's own
    os.environ[PLACE] = str(folder / "environments")
    spec = of_mlflow_model(model)
    began_s = time.perf_counter()
    ensure(spec)
    built_s = time.perf_counter() - began_s
    found: dict[str, list[float]] = {}
    for _ in range(max(5, options.rounds)):
        for name, seconds in _cold_once(spec.to_word(), model).items():
            found.setdefault(name, []).append(seconds)
    parts = [
        f"{said} {statistics.median(found[name]):.2f} s" for name, said in PARTS.items()
    ]
    total_s = sum(statistics.median(one) for one in found.values())
    yield Figure(
        "cold start, MLflow", "a replica's steps in a process of its own, medians; the environment "
        f"is an overlay on the cluster's packages, built once ({built_s:.1f} s)",
        f"{', '.join(parts)}; {total_s:.2f} s in all", "environment: less than 0.5 s",
    )


def _cold_once(word: str, model: Path) -> dict[str, float]:
    last_s = time.time()
    output = subprocess.run(
        [sys.executable, "-c", COLD, word, str(model)], check=True, capture_output=True, text=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    ).stdout
    found: dict[str, float] = {}
    for line in output.splitlines():
        name, at_s = line.split()
        # The overlay's Python begins again: its start and its look belong to the environment.
        name = "environment" if name == "interpreter" and name in found else name
        found[name] = found.get(name, 0.0) + float(at_s) - last_s
        last_s = float(at_s)
    return found


def main() -> None:
    import mlflow.pyfunc
    import pandas

    model = mlflow.pyfunc.load_model(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    began_s = time.monotonic()
    table = pandas.read_parquet(sys.argv[2])
    found = model.predict(table)
    rows = pandas.DataFrame({"row": range(len(table)), "prediction": found})
    rows["file"] = "table.parquet"
    with open(sys.argv[3], "w") as file:
        rows.to_csv(file, header=False, index=False)
        file.flush()
        os.fsync(file.fileno())
    print(time.monotonic() - began_s, flush=True)


if __name__ == "__main__":
    main()
