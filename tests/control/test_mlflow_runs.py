from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from inferay.control.mlflow_runs import MlflowRuns
from inferay.control.mlflow_store import MlflowStore
from inferay.errors import Unavailable
from tests.control.conftest import Plane, deploy, invocation


class Away(MlflowStore):
    """A store that does not answer until it does."""

    is_away = True

    def client(self) -> MlflowClient:
        if self.is_away:
            raise Unavailable("connection refused")
        return super().client()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning",
                            "ignore::FutureWarning")
def test_jobs_are_runs_and_a_store_that_was_away_is_told_what_it_missed(
    plane: Plane, make_code: Callable[..., Path], data: Path, tables: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deploy(plane, make_code())
    shutil.copytree(tables.parent, plane.workspace.mlflow)
    store = Away(plane.workspace, {})
    runs = MlflowRuns(plane.context, store, pause_s=0.0)
    for name in ("done", "stopped"):
        body = invocation(data, name=name, tags={"team": "vision"})
        plane.http.post("/endpoints/digits/jobs", json=body).raise_for_status()
        if name == "stopped":
            plane.http.post("/v1/jobs/stopped/cancel").raise_for_status()
        plane.wait(name, "Completed", "Canceled")
        with caplog.at_level(logging.WARNING, "inferay.control.mlflow_runs"):
            runs.turn()
    assert caplog.text.count("no job waits for it") == 1
    store.is_away = False
    runs.turn()
    runs.turn()   # tells nothing twice

    client = store.client()
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    assert experiment.artifact_location == (plane.workspace.mlflow / "artifacts/digits").as_uri()
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(found) == ["done", "stopped"]
    assert (found["done"].info.status, found["stopped"].info.status) == ("FINISHED", "KILLED")
    job, run = plane.job("done"), found["done"]
    assert run.data.params["mini_batch_size"] == "4"
    assert run.data.params["code"] == "azureml:digits:1"
    assert run.data.metrics["items_ok"] == job["progress"]["counts"]["itemsOk"] > 0
    assert run.data.metrics["percent"] == 100
    assert run.data.tags["inferay.output"] == job["outputs"]["score"]["path"]
    assert run.data.tags["team"] == "vision"
    assert run.info.end_time >= run.info.start_time
    assert len(client.get_metric_history(run.info.run_id, "items_ok")) == 1
