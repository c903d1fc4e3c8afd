"""MLflow models without code, beside what one would use without inferay.

    w8              batch: one Parquet file beside plain pandas on one core, and beside
                    `mlflow models predict` (as CSV, which is what that takes)
    no_code_mlflow  online: through the edge, beside `mlflow models serve`

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
