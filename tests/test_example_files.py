"""The examples that need no control plane, run as they stand."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.batch.driver import Driver
from inferay.engine.batch.pool import LocalPool
from inferay.engine.batch.user_spec import read_user_spec
from inferay.serve.deployment_file import read_deployment

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def copied(name: str, place: Path) -> Path:
    """Return a copy of an example's folder."""
    return Path(shutil.copytree(EXAMPLES / name, place / name))


def run(folder: Path, script: str, *arguments: str) -> str:
    """Run a script of an example; return what it printed."""
    return subprocess.run(
        [sys.executable, script, *arguments], cwd=folder, check=True, timeout=120, text=True,
        stdout=subprocess.PIPE,
    ).stdout


def score(folder: Path, home: Path) -> Any:
    """Score an example's spec; return it."""
    spec = read_user_spec(folder / "spec.yml", {"INFERAY_HOME": str(home)}).spec
    assert Driver(spec, LocalPool).run().status == "Completed"
    return spec


def test_the_tables_example_gives_a_row_for_each_row_of_its_files(tmp_path: Path) -> None:
    folder = copied("tables", tmp_path)
    run(folder, "prepare.py")
    spec = score(folder, tmp_path / "home")
    assert (spec.settings.split, spec.settings.table) == ("rows", "pandas")
    rows = (folder / "out" / "predictions.csv").read_text().splitlines()
    assert [row.split()[0] for row in rows] == [str(patient) for patient in range(100_050)]
    assert rows[1] == "1 0.92"


@pytest.mark.slow
def test_the_mlflow_example_is_scored_without_a_script(tmp_path: Path) -> None:
    folder = copied("mlflow", tmp_path)
    run(folder, "train.py")
    server = read_deployment({"deployment": folder / "online-deployment.yml"}).spec.server
    assert (server.flavor, server.model) == ("mlflow", str(folder / "iris"))
    spec = score(folder, tmp_path / "home")
    assert (spec.flavor, spec.code) == ("mlflow", "")
    with open(folder / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [(row, name) for row, _, name in rows] == [
        (str(at), "new-flowers.csv") for at in range(100)
    ]
    assert {kind for _, kind, _ in rows} == {"setosa", "versicolor", "virginica"}


def test_the_triton_example_tells_files_apart(tmp_path: Path) -> None:
    folder = copied("triton", tmp_path)
    run(folder, "prepare.py")
    server = read_deployment({"deployment": folder / "online-deployment.yml"}).spec.server
    assert (server.flavor, server.model) == ("triton", str(folder / "repository"))
    score(folder, tmp_path / "home")
    labels = json.loads((folder / "labels.json").read_text())
    with open(folder / "out" / "predictions.csv", newline="") as file:
        likely = [json.loads(row) for _, row, _ in csv.reader(file)]
    assert [labels[row.index(max(row))] for row in likely] == ["python", "yaml"]


@pytest.mark.slow
def test_the_environments_example_runs_with_its_own_pin(tmp_path: Path) -> None:
    folder = copied("environments", tmp_path)
    score(folder, tmp_path / "home")
    rows = (folder / "out" / "predictions.csv").read_text().splitlines()
    assert rows == ['4.9.0 "1.2 million" "3.4 billion"', "4.9.0 42"]
    for name, version in (("blue", "4.9.0"), ("green", "4.12.3")):
        spec = read_deployment({"deployment": folder / f"{name}-deployment.yml"}).spec.server
        assert spec.environment is not None
        assert spec.environment.requirements == (f"humanize=={version}",)
