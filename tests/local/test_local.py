"""Local mode over the command line: real processes behind a real edge."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.edges import wait_until
from tests.local.conftest import SCORE, Local
from tests.serve.loads import Load

# The command line of these tests is this process; what it starts outlives it, as it shall.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

MODEL_SCORE = """\
import os

def init():
    global words, listing
    folder = os.environ["AZUREML_MODEL_DIR"]
    listing = os.listdir(folder)
    with open(os.path.join(folder, "weights", "w.txt")) as file:
        words = file.read()

def run(data):
    return [words, listing, os.environ["GREETING"]]
"""

AZURES = """\
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
type: managed
model: {path: ./model-1/}
environment:
  conda_file: ./conda.yaml
  image: mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest
instance_type: Standard_DS3_v2
instance_count: 1
egress_public_network_access: disabled
app_insights_enabled: true
data_collector: {collections: {model_inputs: {enabled: 'True'}}}
scale_settings: {type: default}
liveness_probe: {initial_delay: 10, period: 10, timeout: 2, failure_threshold: 30}
readiness_probe: {initial_delay: 10, period: 10, timeout: 2, success_threshold: 1}
environment_variables: {LEVEL: 1}
tags: {team: a}
properties: {azureml.anything: 'true'}
"""

RAISES = "def init():\n    raise RuntimeError('no weights here')\n\ndef run(data):\n    return 1\n"


def pids(local: Local) -> list[int]:
    return [one.process.pid for one in local.store.read().servers]


def test_a_deployment_answers_with_its_model_and_variables_behind_the_key(local: Local) -> None:
    key = local.endpoint("digits")
    (local.folder / "weights").mkdir()
    (local.folder / "weights" / "w.txt").write_text("three")
    local.write("digits", "blue", MODEL_SCORE, "model: {path: ./weights}\n"
                "environment_variables: {GREETING: hello}\ninstance_count: 2\n")
    created = local.good("online-deployment create -f blue.yml --all-traffic")
    assert created.json["provisioning_state"] == "Succeeded"
    assert "one process" in created.err
    assert local.invoke("digits").json == ["three", ["weights"], "hello"]
    shown = local.good("online-endpoint show -n digits").json
    assert shown["traffic"] == {"blue": 100}
    with local.http() as client:
        for token, status in ((key, 200), ("wrong", 401)):
            answer = client.post(
                shown["scoring_uri"], content="1", headers={"authorization": f"Bearer {token}"}
            )
            assert answer.status_code == status


def test_requests_are_split_mirrored_and_addressed_as_the_rules_say(local: Local) -> None:
    key = local.endpoint("split")
    for name, version in (("blue", "1"), ("green", "2")):
        local.write("split", name, SCORE.replace('"version": 1', f'"version": {version}'))
        local.good(f"online-deployment create -f {name}.yml")
    local.good("online-endpoint update -n split --traffic", "blue=50 green=50")
    headers = {"authorization": f"Bearer {key}"}
    with local.http() as client:
        seen = [
            client.post("/endpoints/split/score", content="1", headers=headers).json()["version"]
            for _ in range(100)
        ]
    assert 20 <= seen.count(2) <= 80
    assert local.invoke("split", 5, "-d green").json == {"version": 2, "got": 5}
    refused = local("online-deployment delete -y -n green -e split")
    assert refused.code == 4
    assert "gets 50 % of its traffic" in refused.err
    local.good("online-endpoint update -n split --traffic", "blue=100",
               "--mirror-traffic", "green=100")
    local.good("online-endpoint update -n split --mirror-traffic", "green=0")
    local.good("online-deployment delete -y -n green -e split")
    assert [one["name"] for one in local.good("online-deployment list -e split").json] == ["blue"]
    assert "no deployment 'gren'" in local("online-endpoint update -n split --traffic",
                                           "gren=100").err


def test_azures_commands_and_file_are_taken_as_they_are(local: Local) -> None:
    local.good("online-endpoint create --name typed --web")
    (local.folder / "model-1").mkdir()
    (local.folder / "model-1" / "m.txt").touch()
    (local.folder / "conda.yaml").write_text("dependencies: [python=3.11]\n")
    local.write("other", "blue", more=AZURES)
    created = local.good("online-deployment create -n blue --endpoint typed --file blue.yml "
                         "--local true --local-enable-gpu true --package-model false")
    assert "egress_public_network_access: has no effect here; ignored" in created.err
    # Without a traffic rule the only deployment answers.
    assert local.invoke("typed", 7).json == {"version": 1, "got": 7}
    local.good("online-deployment create -n green -e typed -f blue.yml --vscode-debug false")
    assert local.invoke("typed").code == 3
    assert local.invoke("typed", 8, "--deployment-name green").json == {"version": 1, "got": 8}


def test_an_update_takes_up_the_code_of_now_and_drops_no_request(local: Local) -> None:
    key = local.endpoint("updated")
    local.write("updated", "blue")
    local.good("online-deployment create -f blue.yml --all-traffic")
    before = pids(local)
    with Load(local, "updated", key, clients=2) as load:
        load.wait_for(10)
        local.write("updated", "blue", SCORE.replace("1", "2"))
        local.good("online-deployment update -n blue -e updated")
        load.wait_for(10)
    assert set(load.seen) == {"200"}
    assert local.invoke("updated").json["version"] == 2
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"
                   for pid in before)


def test_an_init_that_raises_shows_its_traceback_first_and_changes_nothing(local: Local) -> None:
    local.endpoint("failing")
    local.write("failing", "blue", RAISES)
    failed = local("online-deployment create -f blue.yml --all-traffic")
    assert failed.code == 1
    assert failed.err.startswith("Traceback")
    assert "no weights here" in failed.err.splitlines()[-2]
    assert failed.err.splitlines()[-1].startswith("error: ")
    assert "no weights here" in local.good("online-deployment get-logs -n blue -e failing").out
    assert pids(local) == []
    local.write("failing", "blue")
    local.good("online-deployment create -f blue.yml --all-traffic")
    local.write("failing", "blue", RAISES)
    assert local("online-deployment update -f blue.yml").code == 1
    assert local.invoke("failing", 7).json == {"version": 1, "got": 7}
    shown = local.good("online-deployment show -n blue -e failing").json
    assert shown["provisioning_state"] == "Failed"
    assert "no weights here" in shown["error"]["message"]


def test_what_is_wrong_in_the_file_is_one_line_and_code_2(local: Local) -> None:
    local.endpoint("wrong")
    local.write("wrong", "blue")
    for change, said in (
        ("scoring_script: score.py=scoring_script: skore.py", "skore.py"),
        ("name: blue=model: azureml:digits:1\nname: blue", "is not on this machine"),
        ("name: blue=properties: {inferay.max_batchsize: 8}\nname: blue", "did you mean"),
    ):
        old, new = change.split("=")
        text = (local.folder / "blue.yml").read_text()
        (local.folder / "bad.yml").write_text(text.replace(old, new, 1))
        failed = local("online-deployment create -f bad.yml")
        assert (failed.code, len(failed.err.splitlines())) == (2, 1)
        assert said in failed.err
    assert local("online-deployment create -f blue.yml -e nothing").code == 3
    for words, said in (
        ("online-endpoint update -n wrong --set properties.\"inferay.retry_sent\"=true", "did you"),
        ("online-deployment get-logs -n blue -e wrong -l 0", "from 1 to"),
        ("online-endpoint list --local maybe", "expected true or false, got 'maybe'"),
    ):
        failed = local(words)
        assert (failed.code, len(failed.err.splitlines())) == (2, 1), failed.err
        assert said in failed.err


def test_a_script_is_not_parsed_beforehand_where_that_is_not_wanted(local: Local) -> None:
    local.endpoint("unparsed")
    local.write("unparsed", "blue", "def run(data) return 1\n")
    create = "online-deployment create -f blue.yml"
    assert local(create).code == 2
    failed = local(f"{create} --skip-script-validation")
    assert failed.code == 1
    assert "SyntaxError" in failed.err


def test_a_process_that_died_is_told_of_and_started_again_by_an_update(local: Local) -> None:
    local.endpoint("dying")
    local.write("dying", "blue")
    local.good("online-deployment create -f blue.yml --all-traffic")
    [pid] = pids(local)
    psutil.Process(pid).kill()
    wait_until(lambda: "has ended; see" in local.invoke("dying").err, "the process to be missed")
    assert local.good("online-deployment show -n blue -e dying").json[
        "provisioning_state"] == "Failed"
    assert "inferay online-deployment" in local.invoke("dying").err
    local.good("online-deployment update -n blue -e dying")
    assert local.invoke("dying").code == 0


@pytest.mark.parametrize("mode", ["aml_token", "aad_token"])
def test_tokens_open_an_endpoint_that_has_no_keys(local: Local, mode: str) -> None:
    local.good(f"online-endpoint create -n tokens --auth-mode {mode}")
    local.write("tokens", "blue")
    local.good("online-deployment create -f blue.yml --all-traffic")
    old = local.good("online-endpoint get-credentials -n tokens").json["accessToken"]
    assert local.invoke("tokens").code == 0
    local.good("online-endpoint regenerate-keys -y -n tokens")
    with local.http() as client:
        answer = client.post("/endpoints/tokens/score", content="1",
                             headers={"authorization": f"Bearer {old}"})
    assert answer.status_code == 401


def test_deleting_the_last_endpoint_ends_every_process_that_local_mode_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFERAY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    local = Local(tmp_path / "home", tmp_path, capsys)
    for name in ("one", "two"):
        local.endpoint(name)
    local.write("one", "blue")
    local.good("online-deployment create -f blue.yml --all-traffic")
    assert len(running(local)) >= 3   # the server, the edge and its HAProxy
    local.good("online-endpoint delete -y -n one")
    assert [one["name"] for one in local.good("online-endpoint list").json] == ["two"]
    local.good("online-endpoint delete -y -n two")
    assert running(local) == []
    assert local("online-endpoint invoke -n one -r /dev/null").code == 3


def running(local: Local) -> list[psutil.Process]:
    """Return the processes that work in the folder of local mode."""
    return [one for one in psutil.process_iter() if _is_of(one, local)]


def _is_of(process: psutil.Process, local: Local) -> bool:
    try:
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return not is_zombie and str(local.store.workspace.home) in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
