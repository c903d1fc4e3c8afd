"""The pipeline script of `examples/ci`, against real endpoints of plain processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferay.engine.resources import OnlineDeployment, OnlineEndpoint, load
from tests.cli.online_served import ServedOnline, served_online, write_project
from tests.edges import wait_until
from tests.services import require_program

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "ci" / "rollout.sh"

#: Raises after so many calls.
SCORE = """
import os

def init():
    global calls
    calls = 0

def run(data):
    global calls
    calls += 1
    if calls > int(os.environ.get("GOOD_CALLS", "1000000")):
        raise ValueError("worn out")
    return os.environ.get("ANSWER", "6")
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedOnline]:
    require_program("curl")
    with served_online(tmp_path_factory.mktemp("ci")) as served:
        yield served


@pytest.fixture
def project(served: ServedOnline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a new deployment `green`; `blue` serves."""
    write_project(tmp_path)
    (tmp_path / "src" / "score.py").write_text(SCORE)
    monkeypatch.chdir(tmp_path)
    client = served.client
    if not client.online_endpoints.list():
        client.online_endpoints.create_or_update(load(OnlineEndpoint, "endpoint.yml").entity)
        client.online_deployments.create(load(OnlineDeployment, "blue.yml").entity)
    client.online_endpoints.set_traffic("sums", {"blue": 100})
    for one in client.online_deployments.list("sums"):
        if one.name != "blue":
            client.online_deployments.delete(one.name, "sums")
    return tmp_path


def begin(served: ServedOnline, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("INFERAY_")}
    home = str(served.plane.workspace.home)
    return subprocess.Popen(
        [str(SCRIPT), *arguments], env={**kept, "PATH": path, "INFERAY_HOME": home, **variables},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )


def roll_out(served: ServedOnline, project: Path, **variables: str) -> tuple[int, str]:
    """Run the script for `green`, whose script has these variables; return what it said."""
    ours = {name: variables.pop(name) for name in ("GOOD_CALLS", "ANSWER") if name in variables}
    write_green(project, **ours)
    process = begin(served, "sums", "blue", "green.yml", "sample.json", **variables)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def write_green(project: Path, **variables: str) -> None:
    text = (project / "blue.yml").read_text().replace("name: blue", "name: green")
    (project / "green.yml").write_text(f"{text}environment_variables: {variables}\n")


def state(served: ServedOnline) -> tuple[dict[str, int], list[str]]:
    """Return who gets requests, and who is there."""
    client = served.client
    names = [one.name for one in client.online_deployments.list("sums")]
    return dict(client.online_endpoints.get("sums").traffic), names


def test_a_good_deployment_gets_all_requests_step_by_step(
    served: ServedOnline, project: Path
) -> None:
    code, output = roll_out(served, project, CHECK='grep -x \'"6"\'', REQUESTS="20")
    assert code == 0, output
    assert state(served) == ({"green": 100}, ["blue", "green"])
    said = [line for line in output.splitlines() if "%: 'green' answered" in line]
    assert [line.split()[1] for line in said] == ["10", "50", "100"]
    assert "'green' answered 20 of 20 requests, none failed" in said[-1]


@pytest.mark.parametrize(("variables", "said"), [
    ({"GOOD_CALLS": "5"}, "was answered 424 by 'green'"),
    ({"ANSWER": "7", "CHECK": 'grep -x \'"6"\''}, "got a wrong answer from 'green': \"7\""),
    ({"INFERAY_CA": "/no/such/ca.pem"}, "request 1 of 5 was answered 000"),
])
def test_a_bad_deployment_is_taken_back(
    served: ServedOnline, project: Path, variables: dict[str, str], said: str
) -> None:
    code, output = roll_out(served, project, REQUESTS="40", **variables)
    assert code == 1
    assert said in output
    assert "[rollout] rolling back: all requests go to 'blue'\n" in output
    assert "[rollout] 'green' was deleted\n" in output
    assert state(served) == ({"blue": 100}, ["blue"])


def test_what_is_wrong_from_the_start_changes_nothing(served: ServedOnline, project: Path) -> None:
    (project / "green.yml").write_text("name: green\ninstance_cont: 1\n")
    for arguments, code, said in (
        (["sums", "blue", "green.yml", "sample.json"], 1, "did you mean 'instance_count'"),
        (["sums", "red", "blue.yml", "sample.json"], 1, "'red' gets 0 % of the requests"),
        (["sums", "blue", "blue.yml", "sample.json"], 1, "has a deployment 'blue' already"),
        (["ghost", "blue", "blue.yml", "sample.json"], 3, "there is no online endpoint 'ghost'"),
    ):
        process = begin(served, *arguments)
        output, _ = process.communicate(timeout=60)
        assert (process.returncode, said in output) == (code, True), output
        assert "rolling back" not in output
    assert state(served) == ({"blue": 100}, ["blue"])


def test_a_pipeline_that_is_canceled_rolls_back(served: ServedOnline, project: Path) -> None:
    write_green(project)
    process = begin(served, "sums", "blue", "green.yml", "sample.json", STEPS="10",
                    REQUESTS="1000000")
    wait_until(lambda: state(served)[0].get("green") == 10, "the first step", 60)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "'green' was deleted" in output
    assert state(served) == ({"blue": 100}, ["blue"])
