from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

BIN = Path(sys.executable).parent

SCORE = """
import os
import time

import pandas as pd

import engine, jobs, serve, utils


def init():
    global weight
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model", "weight.txt")) as file:
        weight = int(file.read())


def run(mini_batch):
    time.sleep(float(os.environ.get("PAUSE_S", "0")))
    rows = []
    for path in mini_batch:
        name = os.path.basename(path)
        if name in os.environ.get("POISON", "").split(","):
            raise ValueError(f"cannot read {name}")
        rows.append((name, int(open(path).read()) * weight, utils.NAME))
    return pd.DataFrame(rows)
"""

ENDPOINT = """
$schema: https://azuremlschemas.azureedge.net/latest/batchEndpoint.schema.json
name: scale
description: Multiplies numbers
auth_mode: aad_token
"""

DEPLOYMENT = """
$schema: https://azuremlschemas.azureedge.net/latest/modelBatchDeployment.schema.json
name: blue
type: model
model:
  path: ./model
  type: custom_model
code_configuration:
  code: ./src
  scoring_script: score.py
environment:
  image: mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest
  conda_file:
    name: env
    channels: [conda-forge]
    dependencies: [python=3.11, pip, {pip: [pandas]}]
compute: azureml:batch-cluster
resources:
  instance_count: 1
settings:
  mini_batch_size: 1
  max_concurrency_per_instance: 2
  output_action: append_row
  output_file_name: predictions.csv
  retry_settings: {max_retries: 1, timeout: 30}
  error_threshold: -1
  logging_level: info
"""


@dataclass
class Said:
    code: int
    out: str
    err: str


@dataclass
class Product:
    """A user's folder outside the repository, and a workspace of its own."""

    folder: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "INFERAY_"))}
        return {**kept, "INFERAY_HOME": str(self.home)}

    def run(self, *command: str, env: dict[str, str] | None = None, limit_s: float = 120) -> Said:
        """Run a program in the user's folder."""
        done = subprocess.run(
            command, cwd=self.folder, env={**self.environment, **(env or {})}, text=True,
            capture_output=True, timeout=limit_s, stdin=subprocess.DEVNULL, check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def inferay(self, *arguments: str) -> Said:
        return self.run(str(BIN / "inferay"), *arguments)

    def ok(self, *arguments: str) -> str:
        """Run a command that has to succeed; return what it printed."""
        said = self.inferay(*arguments)
        assert said.code == 0, f"{arguments}: {said.err}{said.out}"
        return said.out.strip()

    def invoke(self, *arguments: str) -> str:
        """Invoke the endpoint; return the job's name."""
        return self.ok("batch-endpoint", "invoke", "-n", "scale", "--input", "data", "--query",
                       "name", "-o", "tsv", *arguments)

    def field(self, job: str, query: str) -> str:
        return self.ok("job", "show", "-n", job, "--query", query, "-o", "tsv")

    def output(self, job: str) -> Path:
        return Path(self.field(job, "outputs.score.path"))

    def wait_until(self, is_true: Callable[[], bool], limit_s: float = 60) -> None:
        until_s = time.monotonic() + limit_s
        while not is_true():
            assert time.monotonic() < until_s, "waited too long"
            time.sleep(0.1)

    def wait_for_rows(self, job: str, rows: int) -> None:
        self.wait_until(
            lambda: int(self.field(job, "progress.counts.rows || `0`")) >= rows
        )

    def processes(self) -> list[psutil.Process]:
        """Return the processes that belong to the workspace: variables or arguments name it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                words = [*process.cmdline(), *process.environ().values()]
                if any(str(self.home) in word for word in words):
                    found.append(process)
        return found


@contextlib.contextmanager
def workspace() -> Iterator[Product]:
    """Run a workspace in a new folder; end it, and check that nothing of it is left."""
    folder = Path(tempfile.mkdtemp(prefix="inferay-product-"))
    product = Product(folder, folder / "home")
    try:
        product.ok("up")
        yield product
    finally:
        product.inferay("down")
        left = product.processes()
        shutil.rmtree(folder, ignore_errors=True)
    assert left == []


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    with workspace() as product:
        folder = product.folder
        for name in ("data", "src", "model"):
            (folder / name).mkdir()
        for number in range(100):
            (folder / "data" / f"in{number:03d}.txt").write_text(str(number))
        (folder / "model" / "weight.txt").write_text("3")
        (folder / "src" / "score.py").write_text(SCORE)
        for name in ("engine", "jobs", "serve", "utils"):
            (folder / "src" / f"{name}.py").write_text(f"NAME = '{name}'\n")
        (folder / "endpoint.yml").write_text(ENDPOINT)
        (folder / "deployment.yml").write_text(DEPLOYMENT)
        product.ok("batch-endpoint", "create", "-f", "endpoint.yml")
        product.ok("batch-deployment", "create", "-f", "deployment.yml", "--endpoint-name", "scale",
                   "--set-default")
        product.ok("batch-deployment", "create", "-f", "deployment.yml", "-e", "scale", "-n",
                   "slow", "--set", "environment_variables.PAUSE_S=0.2")
        yield product
