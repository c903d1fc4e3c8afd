"""`mlflow deployments … -t inferay`, as MLflow's own command line and API call it."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from tests.cli.online_served import ServedOnline, served_online

#: Adds the numbers of each row, whatever form of MLflow's the request has.
SCORE = """
import json

def init():
    pass

def run(data):
    asked = json.loads(data)
    if "dataframe_split" in asked:
        return [sum(row) for row in asked["dataframe_split"]["data"]]
    return {"predictions": asked}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedOnline]:
    with served_online(tmp_path_factory.mktemp("online")) as served:
        yield served


@pytest.fixture
def target(
    served: ServedOnline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> str:
    """The target of a served control plane, from a folder with code and a model."""
    address = served.client.http.address
    monkeypatch.setenv("INFERAY_TOKEN", address.token)
    monkeypatch.setenv("INFERAY_CA", str(address.ca))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "score.py").write_text(SCORE)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("1")
    monkeypatch.chdir(tmp_path)
    return f"inferay:{address.url}"


@pytest.fixture
def api(target: str) -> Any:
    """MLflow's client of the target, by the module that the entry point names."""
    from mlflow.deployments import get_deploy_client
    from mlflow.deployments.interface import plugin_store

    plugin_store.register("inferay", "inferay.mlflow_plugin")
    return get_deploy_client(target)


Mlflow = Callable[..., str]


@pytest.fixture
def mlflow(api: Any, target: str) -> Mlflow:
    """Run `mlflow deployments …` in this process; return what it prints."""
    from mlflow.deployments.cli import commands

    def run(command: str, *arguments: str) -> str:
        found = CliRunner().invoke(commands, [command, "-t", target, *arguments])
        assert found.exit_code == 0, (found.output, found.exception)
        return found.output

    return run


CODE = ("-C", "code_configuration.code=src", "-C", "code_configuration.scoring_script=score.py")


def test_a_model_is_deployed_scored_listed_updated_and_deleted(
    mlflow: Mlflow, api: Any, served: ServedOnline, tmp_path: Path
) -> None:
    said = mlflow("create", "--name", "sums/blue", "-m", "model", *CODE)
    assert "python_function deployment sums/blue is created" in said
    assert served.client.online_endpoints.get("sums").traffic == {"blue": 100}
    table = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    table.to_json(tmp_path / "in.json", orient="records")
    said = mlflow("predict", "--name", "sums/blue", "-I", str(tmp_path / "in.json"))
    assert json.loads(said) == {"predictions": [4, 6]}
    assert api.predict(endpoint="sums", inputs=table).get_predictions()[0].tolist() == [4, 6]
    assert api.predict("sums/blue", table["a"]) == {"predictions": {"inputs": [1, 2]}}
    assert api.predict("sums/blue", {"instances": [1]}) == {"predictions": {"instances": [1]}}
    assert "sums/blue" in mlflow("list")
    assert "endpoint_name: sums" in mlflow("get", "--name", "sums/blue")
    mlflow("update", "--name", "sums/blue", "-C", "tags.owner=me")
    assert served.client.online_deployments.get("blue", "sums").tags == {"owner": "me"}
    for _ in range(2):   # a repeat is fine
        mlflow("delete", "--name", "sums/blue")
    assert served.client.online_deployments.list("sums") == []
    assert api.list_deployments("sums") == []


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
def test_a_model_that_mlflow_saved_is_served_without_a_script(mlflow: Mlflow, api: Any) -> None:
    from mlflow import sklearn as mlflow_sklearn
    from mlflow.models import infer_signature
    from sklearn.linear_model import LinearRegression

    table = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [3.0, 4.0, 1.0]})
    fitted = LinearRegression().fit(table, [1.0, 2.0, 3.0])
    mlflow_sklearn.save_model(   # what it needs is said: else MLflow loads it to find out
        fitted, "saved", signature=infer_signature(table), pip_requirements=["scikit-learn"]
    )
    mlflow("create", "--name", "line", "-m", "saved", "--flavor", "sklearn")
    answer = api.predict("line", table)
    assert answer.get_predictions("ndarray").ravel() == pytest.approx(fitted.predict(table))
    mlflow("delete", "--name", "line")


def test_endpoints_are_created_changed_listed_and_deleted(mlflow: Mlflow, api: Any) -> None:
    assert api.create_endpoint("mine")["name"] == "mine"   # MLflow's own command for it fails
    api.update_endpoint("mine", {"tags": {"a": "b"}})
    assert api.get_endpoint("mine")["tags"] == {"a": "b"}
    assert "mine" in mlflow("list-endpoints")
    for _ in range(2):
        mlflow("delete-endpoint", "--endpoint", "mine")
    assert "mine" not in [one["name"] for one in api.list_endpoints()]


@pytest.mark.parametrize(("call", "code", "said"), [
    (lambda api: api.get_deployment("no/such"), "RESOURCE_DOES_NOT_EXIST", "'no'"),
    (lambda api: api.create_deployment("e-1/d", "nothing"), "INVALID_PARAMETER_VALUE", "MLmodel"),
    (lambda api: api.create_deployment("e-1/d", "model", flavor="sklearn"),
     "INVALID_PARAMETER_VALUE", "MLmodel"),
    (lambda api: api.create_deployment("e-1/d", "model", config={"instance_cuont": "2"}),
     "INVALID_PARAMETER_VALUE", "instance_count"),
    (lambda api: api.create_deployment("e-1/d", "model", endpoint="other"),
     "INVALID_PARAMETER_VALUE", "give one"),
    (lambda api: api.predict(inputs=[1]), "INVALID_PARAMETER_VALUE", "give the deployment's name"),
    (lambda api: api.update_deployment("e-1/d", flavor="sklearn"), "INVALID_PARAMETER_VALUE",
     "give the model too"),
])
def test_a_mistake_is_an_error_of_mlflow_with_our_words(
    api: Any, call: Callable[[Any], object], code: str, said: str
) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=said) as caught:
        call(api)
    assert caught.value.error_code == code


def test_a_script_that_cannot_start_shows_its_traceback(
    api: Any, served: ServedOnline, tmp_path: Path
) -> None:
    from mlflow.exceptions import MlflowException

    script = SCORE.replace("pass", "raise ValueError('no weights')")
    (tmp_path / "src" / "score.py").write_text(script)
    config = {"code_configuration": {"code": "src", "scoring_script": "score.py"}}
    with pytest.raises(MlflowException, match=r"(?s)\ATraceback .*ValueError: no weights"):
        api.create_deployment("broken", "model", config=config)
    api.delete_endpoint("broken")


def test_mlflows_command_finds_the_target_by_its_entry_point(target: str) -> None:
    names = [one.value for one in importlib.metadata.entry_points(group="mlflow.deployments")]
    if "inferay.mlflow_plugin" not in names:
        pytest.fail("the entry point is not installed; run `make install`")
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "deployments", "help", "-t", target],
        capture_output=True, text=True, timeout=120,
    )
    assert "--name ENDPOINT/DEPLOYMENT" in done.stdout, done.stderr
