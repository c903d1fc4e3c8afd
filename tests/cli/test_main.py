from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import yaml

from inferay.cli.output import upload_bar
from tests.cli.conftest import Inferay, Served

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def deployed(inferay: Inferay) -> Inferay:
    assert inferay("batch-endpoint", "create", "-f", "endpoint.yml").code == 0
    said = inferay(
        "batch-deployment", "create", "-f", "deployment.yml", "--endpoint-name", "digits",
        "--set-default",
    )
    assert said.code == 0, said.err
    return inferay


def test_a_users_whole_path_from_yaml_to_predictions(deployed: Inferay, project: Path) -> None:
    said = deployed(
        "batch-endpoint", "invoke", "--name", "digits", "--input", "./data", "--query", "name",
        "-o", "tsv",
    )
    job = said.out.strip()
    assert (said.code, "\n" in job) == (0, False)
    streamed = deployed("job", "stream", "--name", job)
    assert streamed.code == 0
    assert "Completed. 10 items ok, 0 failed, 10 rows." in streamed.out
    downloaded = deployed(
        "job", "download", "--name", job, "--output-name", "score", "--download-path", "./out"
    )
    assert downloaded.code == 0
    rows = (project / "out/named-outputs/score/predictions.csv").read_text()
    assert rows == "".join(f"{number}.txt\n" for number in range(10))
    again = deployed("job", "download", "--name", job, "--output-name", "score",
                     "--download-path", "./out")
    assert (again.code, "exists already" in again.err) == (4, True)
    logs = deployed("job", "download", "-n", job, "-p", "logs")
    assert logs.code == 0


def test_what_was_accepted_but_means_less_here_is_said_in_warnings(inferay: Inferay) -> None:
    inferay("batch-endpoint", "create", "-f", "endpoint.yml")
    said = inferay(
        "batch-deployment", "create", "-f", "deployment.yml", "-e", "digits", "--set",
        "resources.instance_count=5", "resources.instance_type=Standard_DS4_v2",
    )
    warnings = [line for line in said.err.splitlines() if line.startswith("warning: ")]
    assert said.code == 0
    assert any("compute 'cpu-cluster' is not defined" in line for line in warnings)
    assert any("Standard_DS4_v2 has 8 CPUs and this machine 2" in line for line in warnings)
    assert any("5 workers were asked for" in line for line in warnings)
    quiet = inferay(
        "batch-deployment", "create", "-f", "deployment.yml", "-e", "digits",
        "--only-show-errors",
    )
    assert (quiet.code, quiet.err) == (0, "")


def test_a_gpu_type_without_a_gpu_is_refused_and_the_way_out_is_named(inferay: Inferay) -> None:
    inferay("batch-endpoint", "create", "-f", "endpoint.yml")
    create = ("batch-deployment", "create", "-f", "deployment.yml", "-e", "digits", "--set",
              "resources.instance_type=Standard_NC6s_v3")
    refused = inferay(*create)
    assert (refused.code, "inferay.allow_cpu" in refused.err) == (2, True)
    assert inferay(*create, 'properties."inferay.allow_cpu"=true').code == 0


def test_settings_can_be_set_for_one_job(deployed: Inferay) -> None:
    said = deployed(
        "batch-endpoint", "invoke", "-n", "digits", "--input", "data", "-m", "3", "--set",
        "settings.error_threshold=2", "retry_settings.timeout=9", "environment_variables.A=1",
    )
    name = said.json["name"]   # type: ignore[index]
    assert deployed("job", "stream", "-n", name).code == 0
    spec = json.loads(Path(deployed(
        "job", "show", "-n", name, "--query", "outputs.score.path", "-o", "tsv"
    ).out.strip(), "_SUCCESS.json").read_text())
    assert spec["counts"]["mini_batches"] == 4
    progress = deployed("job", "show", "-n", name, "--query", "progress").json
    assert progress["percent"] == 100.0   # type: ignore[index]
    assert sum(one["mini_batches_done"] for one in progress["workers"]) == 4   # type: ignore[index]
    assert progress["worker_seconds"]["starting"] > 0   # type: ignore[index]
    table = deployed("job", "show", "-n", name, "-o", "table").out
    assert "100.0 %, 4 of 4 mini-batches" in table
    assert "Slowest mini-batches" in table
    shown = deployed("batch-deployment", "show", "-n", "blue", "-e", "digits").json
    assert shown["settings"]["mini_batch_size"] == 4   # type: ignore[index]
    refused = deployed("batch-endpoint", "invoke", "-n", "digits", "--input", "data", "--set",
                       "model=azureml:m:1")
    assert (refused.code, "for one job" in refused.err) == (2, True)


def test_a_failed_job_shows_the_users_traceback_and_nothing_of_ours(
    deployed: Inferay, project: Path
) -> None:
    (project / "src" / "score.py").write_text(
        "import helper\n\ndef init():\n    helper.go()\n\ndef run(mini_batch):\n    return []\n"
    )
    (project / "src" / "helper.py").write_text("def go():\n    raise KeyError('no weights')\n")
    deployed("batch-deployment", "create", "-f", "deployment.yml", "-e", "digits", "-n", "bad")
    name = deployed("batch-endpoint", "invoke", "-n", "digits", "-d", "bad", "--input", "data",
                    "--query", "name", "-o", "tsv").out.strip()
    said = deployed("job", "stream", "-n", name)
    assert said.code == 1
    assert 'File "score.py", line 4, in init' in said.out
    assert 'File "helper.py", line 2, in go' in said.out
    assert "inferay/" not in said.out.split("Traceback", 1)[1].split("Job ")[0]
    assert said.err == ""


def test_endpoints_and_deployments_are_listed_updated_and_deleted(deployed: Inferay) -> None:
    shown = deployed("batch-endpoint", "show", "-n", "digits", "-o", "yaml")
    assert yaml.safe_load(shown.out)["defaults"] == {"deployment_name": "blue"}
    deployed("batch-endpoint", "update", "-n", "digits", "--set", "tags.team=a", "description=New")
    found = deployed("batch-endpoint", "list", "--query", "[].[name, tags.team]", "-o", "tsv")
    assert found.out == "digits\ta\n"
    deployed("batch-deployment", "create", "-f", "deployment.yml", "-e", "digits", "-n", "green")
    updated = deployed("batch-deployment", "update", "-n", "green", "-e", "digits", "--set",
                       "settings.mini_batch_size=9")
    assert updated.json["settings"]["mini_batch_size"] == 9   # type: ignore[index]
    refused = deployed("batch-deployment", "delete", "-n", "blue", "-e", "digits", "-y")
    assert (refused.code, "default deployment" in refused.err) == (4, True)
    assert deployed("batch-endpoint", "update", "-n", "digits", "--defaults",
                    "deployment_name=green").code == 0
    assert deployed("batch-deployment", "delete", "-n", "blue", "-e", "digits", "-y").code == 0
    names = deployed("batch-deployment", "list", "-e", "digits", "-o", "table")
    assert "green" in names.out
    assert "blue" not in names.out
    assert deployed("batch-endpoint", "delete", "-n", "digits", "--yes").code == 0
    assert deployed("batch-endpoint", "show", "-n", "digits").code == 3


def test_assets_are_created_shown_listed_and_deleted(inferay: Inferay, project: Path) -> None:
    (project / "weights.bin").write_bytes(b"1")
    made = inferay("model", "create", "-n", "m", "-p", "weights.bin", "-t", "custom_model",
                   "--tags", "a=b")
    assert (made.code, made.json["version"]) == (0, "1")   # type: ignore[index]
    assert inferay("model", "create", "-n", "m", "-v", "1", "-p", "weights.bin", "--tags",
                   "a=b").code == 0
    (project / "weights.bin").write_bytes(b"2")
    clash = inferay("model", "create", "-n", "m", "-v", "1", "-p", "weights.bin", "--tags", "a=b")
    assert (clash.code, "other content" in clash.err) == (4, True)
    assert inferay("model", "create", "-n", "m", "-p", "weights.bin").json["version"] == "2"   # type: ignore[index]
    assert inferay("model", "list", "-n", "m", "--query", "[].version", "-o", "tsv").out == "2\n1\n"
    assert inferay("model", "show", "-n", "m", "-l", "latest").json["version"] == "2"   # type: ignore[index]
    got = inferay("model", "download", "-n", "m", "-l", "latest", "-p", "down")
    assert (got.code, (project / "down/m/weights.bin").read_bytes()) == (0, b"2")
    wrong = inferay("model", "download", "-n", "m", "-l", "prod")
    assert (wrong.code, "there is 'latest'" in wrong.err) == (3, True)
    inferay("data", "create", "-n", "d", "-p", "data")
    assert inferay("data", "show", "-n", "d", "--query", "type", "-o", "tsv").out == "uri_folder\n"
    (project / "conda.yml").write_text("dependencies: [python=3.11, {pip: [nosuchpackage]}]\n")
    assert inferay("environment", "create", "-n", "e", "-i", "img", "-c", "conda.yml").code == 0
    assert inferay("compute", "create", "-n", "c", "-t", "amlcompute", "--size",
                   "Standard_DS3_v2", "--max-instances", "2").code == 0
    assert inferay("compute", "show", "-n", "c", "--query", "max_instances", "-o", "tsv").out == (
        "2\n"
    )
    assert inferay("datastore", "create", "-n", "s", "-p", str(project)).code == 0
    listed = inferay("datastore", "list", "--query", "sort([].name)", "-o", "tsv").out.split()
    assert listed == ["s", "workspaceartifactstore", "workspaceblobstore"]
    for command in (("model", "-v", "1"), ("data", "-v", "1"), ("environment", "-v", "1")):
        name = {"model": "m", "data": "d", "environment": "e"}[command[0]]
        assert inferay(command[0], "delete", "-n", name, *command[1:], "-y").code == 0
    for group, name in (("compute", "c"), ("datastore", "s")):
        assert inferay(group, "delete", "-n", name, "-y").code == 0
        assert inferay(group, "show", "-n", name).code == 3


def test_a_registered_model_data_asset_and_environment_serve_a_job(
    deployed: Inferay, project: Path
) -> None:
    (project / "model").mkdir()
    (project / "model" / "w.txt").write_text("7")
    (project / "src" / "score.py").write_text(
        "import os\n\ndef init():\n    global w\n"
        "    w = open(os.path.join(os.environ['AZUREML_MODEL_DIR'], 'model/w.txt')).read()\n\n"
        "def run(mini_batch):\n    return [w for _ in mini_batch]\n"
    )
    deployed("model", "create", "-n", "w", "-p", "model")
    deployed("data", "create", "-n", "digits-data", "-p", "data")
    said = deployed(
        "batch-deployment", "create", "-f", "deployment.yml", "-e", "digits", "-n", "reg", "--set",
        "model=azureml:w@latest", "environment=azureml:AzureML-sklearn-1.5:1",
    )
    assert (said.code, "curated" in said.err) == (0, True)
    name = deployed(
        "batch-endpoint", "invoke", "-n", "digits", "-d", "reg", "--input",
        "azureml:digits-data@latest", "--query", "name", "-o", "tsv",
    ).out.strip()
    assert deployed("job", "stream", "-n", name).code == 0
    path = deployed("job", "show", "-n", name, "--query", "outputs.score.path", "-o", "tsv")
    assert Path(path.out.strip(), "predictions.csv").read_text() == "7\n" * 10


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["batch-endpint", "list"], 2, "did you mean 'batch-endpoint'"),
        (["job", "sho", "-n", "x"], 2, "did you mean 'show'"),
        (["job", "show"], 2, "-n/--name"),
        (["up", "--workers-max", "0"], 2, "from 1 to 65535"),
        (["up", "--port", "x"], 2, "--port"),
        (["job", "show", "-n", "x", "--querry", "y"], 2, "did you mean '--query'"),
        (["job", "list", "--query", "[["], 2, "--query"),
        (["job", "list", "-o", "xml"], 2, "expected one of json"),
        (["job", "show", "-n", "ghost"], 3, "no job 'ghost'"),
        (["batch-endpoint", "delete", "-n", "ghost", "-y"], 3, "ghost"),
        (["batch-endpoint", "create", "-f", "nope.yml"], 2, "nope.yml"),
        (["batch-endpoint", "create", "-n", "x"], 2, "3 to 32"),
        (["batch-endpoint", "create"], 2, "name"),
        (["batch-deployment", "create", "-f", "deployment.yml"], 2, "endpoint_name"),
        (["batch-deployment", "create", "-f", "deployment.yml", "-e", "ghost"], 3, "ghost"),
        (["batch-endpoint", "invoke", "-n", "ghost", "--input", "data"], 3, "ghost"),
        (["batch-endpoint", "invoke", "-n", "ghost", "--input", "nope"], 2, "does not exist"),
        (["batch-endpoint", "invoke", "-n", "ghost", "--input", "data", "-m", "x"], 2,
         "expected an integer"),
        (["batch-endpoint", "invoke", "-n", "ghost", "--input", ""], 2, "input: missing"),
        (["batch-endpoint", "invoke", "-n", "ghost", "--input", "data", "--output-path", ""], 2,
         "output_path: empty"),
        (["model", "create", "-n", "m", "-p", "nope"], 2, "nope"),
        (["model", "delete", "-n", "m", "-y"], 2, "--version"),
        (["datastore", "create", "-n", "b", "-t", "s3"], 2, "bucket: missing"),
        (["datastore", "create", "-n", "b", "-t", "azure_blob", "--set", "account_name=a", "--set",
          "container_name=c"], 2, "account_name"),
        (["compute", "create", "-n", "c", "-t", "amlcompute", "--min-instances", "5"], 2,
         "max_instances"),
    ],
)
def test_a_mistake_is_one_line_with_its_exit_code(
    inferay: Inferay, arguments: list[str], code: int, said: str
) -> None:
    found = inferay(*arguments)
    assert found.code == code, found.err
    assert said in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert found.out == ""


def test_an_empty_folder_fails_at_once_with_the_jobs_name(
    deployed: Inferay, project: Path
) -> None:
    (project / "empty").mkdir()
    said = deployed("batch-endpoint", "invoke", "-n", "digits", "--input", "empty", "--query",
                    "name", "-o", "tsv")
    assert (said.code, "has no files" in said.err) == (1, True)
    assert deployed("job", "show", "-n", said.out.strip(), "--query", "error.code", "-o",
                    "tsv").out == "NoInput\n"


def test_a_client_elsewhere_uploads_what_it_names(
    inferay: Inferay, served: Served, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = served.plane.workspace
    monkeypatch.setenv("INFERAY_URL", served.url)
    monkeypatch.setenv("INFERAY_TOKEN", workspace.admin_token.read_text())
    monkeypatch.setenv("INFERAY_CA", str(workspace.ca_certificate))
    inferay("batch-endpoint", "create", "-n", "far-away")
    assert inferay("batch-deployment", "create", "-f", "deployment.yml", "-e", "far-away",
                   "--set-default").code == 0
    said = inferay("batch-endpoint", "invoke", "-n", "far-away", "--input", "data")
    job = said.json
    assert job["inputs"]["input"]["path"].startswith("azureml://datastores/workspaceblobstore")   # type: ignore[index]
    assert inferay("job", "stream", "-n", job["name"]).code == 0   # type: ignore[index]
    inferay("job", "download", "-n", job["name"], "--all", "-p", "far")   # type: ignore[index]
    rows = (project / "far/named-outputs/score/predictions.csv").read_text().splitlines()
    assert rows == [f"{number}.txt" for number in range(10)]


def test_a_client_with_a_wrong_token_or_ca_is_told_so(
    inferay: Inferay, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERAY_URL", served.url)
    assert inferay("job", "list").code == 2
    monkeypatch.setenv("INFERAY_TOKEN", "wrong")
    untrusted = inferay("job", "list")
    assert (untrusted.code, "CERTIFICATE" in untrusted.err.upper()) == (6, True)
    monkeypatch.setenv("INFERAY_CA", str(served.plane.workspace.ca_certificate))
    assert inferay("job", "list").code == 5


def test_status_is_prose_for_a_person_and_json_on_demand(inferay: Inferay) -> None:
    assert inferay("status").out.startswith("edge  ")
    assert inferay("status", "-o", "json").json["ray"]["state"] == "Running"   # type: ignore[index]
    assert inferay("status", "--query", "ray.state").json == "Running"


def test_up_refuses_what_does_not_say_whether_private_addresses_are_allowed(
    inferay: Inferay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferay.launcher.up", lambda *_, **__: pytest.fail("it was started"))
    monkeypatch.setenv("INFERAY_ALLOW_PRIVATE_ADDRESSES", "yes")
    said = inferay("up")
    assert (said.code, "expected true or false, got 'yes'" in said.err) == (2, True)


def test_without_a_workspace_the_command_says_what_to_do(
    inferay: Inferay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERAY_HOME", str(tmp_path / "none"))
    said = inferay("job", "list")
    assert (said.code, "inferay up" in said.err) == (6, True)
    assert not (tmp_path / "none").exists()


def test_what_is_archived_is_in_no_list_and_not_the_latest(inferay: Inferay, project: Path) -> None:
    def versions(*flags: str) -> list[str]:
        return inferay("data", "list", "-n", "d", *flags, "--query", "[].version", "-o",
                       "tsv").out.split()

    uri = "https://example.org/x.csv"
    for _ in range(2):
        inferay("data", "create", "-n", "d", "-p", uri, "-t", "uri_file")
    assert inferay("data", "archive", "-n", "d", "-v", "2").code == 0
    assert inferay("data", "show", "-n", "d", "-l", "latest").json["version"] == "1"   # type: ignore[index]
    assert inferay("data", "show", "-n", "d", "-v", "2").code == 0
    assert (versions(), versions("--archived-only"), versions("--include-archived")) == (
        ["1"], ["2"], ["2", "1"]
    )
    assert inferay("data", "archive", "-n", "d").code == 0
    assert versions() == []
    assert inferay("data", "show", "-n", "d").code == 3
    assert inferay("data", "restore", "-n", "d").code == 0
    assert versions() == ["2", "1"]
    assert inferay("data", "archive", "-n", "d", "-v", "7").code == 3


def test_a_terminal_shows_how_far_an_upload_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with upload_bar(is_silent=False) as progress:
        assert progress is not None
        progress("uploading", 1_000_000, 2_000_000)
        progress("uploading", 2_000_000, 2_000_000)
    assert "uploading" in terminal.getvalue()
    assert "2.0/2.0 MB" in terminal.getvalue()
    with upload_bar(is_silent=True) as nothing:
        assert nothing is None


def test_the_data_example_is_uploaded_once(inferay: Inferay, project: Path) -> None:
    folder = project / "reviews-example"
    shutil.copytree(EXAMPLES / "data", folder)
    for version in ("1", "2"):
        made = inferay("data", "create", "-f", str(folder / "reviews.yml"), "--query", "version",
                       "-o", "tsv")
        assert (made.code, made.out) == (0, f"{version}\n"), made.err
    paths = inferay("data", "list", "-n", "reviews", "--query", "[].path", "-o", "tsv").out.split()
    assert len(set(paths)) == 1   # one content, in one place
    assert "/LocalUpload/" in paths[0]
