from __future__ import annotations

from pathlib import Path

import pytest

from inferay.errors import InvalidInput
from inferay.serve.deployment_file import read_deployment
from inferay.serve.replica_spec import Scale

SAMPLE = Path(__file__).parents[1] / "engine/resources/samples/online-deployment.yml"


def test_a_persons_file_is_an_application_without_an_edge() -> None:
    found = read_deployment({"deployment": str(SAMPLE), "num_cpus": "0.5"})
    assert (found.spec.endpoint, found.spec.deployment) == ("my-endpoint", "blue")
    assert found.spec.edge_url is None
    assert found.spec.server.code_dir == str(SAMPLE.parent / "code")
    assert found.spec.server.model_dir == str(SAMPLE.parent)
    assert (found.instances, found.scale) == (2, Scale(1, 3, 60, 5))
    assert (found.resources.num_cpus, found.resources.num_gpus) == (0.5, 0.0)


def test_its_path_starts_at_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SAMPLE.parent)
    found = read_deployment({"deployment": "online-deployment.yml"})
    assert found.spec.server.code_dir == str(SAMPLE.parent / "code")
    assert found.resources.num_cpus == 1.0


def test_a_gpu_type_asks_for_gpus_unless_it_may_run_on_cpus(tmp_path: Path) -> None:
    def gpus(properties: str) -> float:
        path = tmp_path / "deployment.yml"
        path.write_text(
            "name: blue\ninstance_type: Standard_NC6s_v3\n"
            f"code_configuration: {{code: ., scoring_script: score.py}}\n{properties}"
        )
        (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): pass\n")
        return read_deployment({"deployment": str(path)}).resources.num_gpus

    assert gpus("") == 1.0
    assert gpus('properties: {inferay.allow_cpu: "true"}') == 0.0


@pytest.mark.parametrize(("args", "said"), [
    ({}, "no deployment is given; expected deployment=FILE"),
    ({"deploiment": "x"}, "unknown argument 'deploiment'; did you mean 'deployment'?"),
    ({"deployment": str(SAMPLE), "num_cpus": "many"}, "expected a number of CPUs, got 'many'"),
    ({"deployment": str(SAMPLE), "num_cpus": "nan"}, "expected a number of CPUs, got 'nan'"),
])
def test_a_wrong_argument_is_named(args: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said.replace("?", r"\?")):
        read_deployment(args)


def test_a_registered_model_takes_a_control_plane(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): pass\n")
    path = tmp_path / "deployment.yml"
    path.write_text(
        "name: blue\nmodel: azureml:digits:1\n"
        "code_configuration: {code: ., scoring_script: score.py}\n"
    )
    with pytest.raises(InvalidInput, match="'azureml:digits:1' is not on this machine"):
        read_deployment({"deployment": str(path)})
