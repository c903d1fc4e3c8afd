"""What an environment declares, read from conda files, requirements and MLflow models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inferay.engine.scoring.environments import EnvironmentSpec, from_conda, of_mlflow_model
from inferay.engine.scoring.environments.spec import from_lines
from inferay.errors import InvalidInput


@pytest.mark.parametrize(("written", "asked"), [
    ("numpy", "numpy"),
    ("numpy=1.26", "numpy==1.26.*"),
    ("numpy=1.26.4", "numpy==1.26.4.*"),
    ("numpy==1.26.4", "numpy==1.26.4"),
    ("numpy=1.26.*", "numpy==1.26.*"),
    ("numpy=1.26.4=py311h64a7726_0", "numpy==1.26.4"),
    ("numpy >=1.22, <2", "numpy>=1.22,<2"),
    ("numpy 1.26.*", "numpy==1.26.*"),
    ("numpy 1.26.4 py311_0", "numpy==1.26.4"),
    ("conda-forge::scikit-learn=1.6.1", "scikit-learn==1.6.1.*"),
    ("conda-forge/linux-64::pytorch=2.1", "torch==2.1.*"),
    ("Scikit-Learn~=1.6.1", "scikit-learn~=1.6.1"),
])
def test_a_package_of_conda_is_asked_of_pip(written: str, asked: str) -> None:
    assert from_conda({"dependencies": [written]}, "e").requirements == (asked,)


def test_a_whole_conda_file_is_read_in_order() -> None:
    found = from_conda("""
        name: model
        channels: [conda-forge]
        dependencies:
          - python=3.11.7
          - pip<=24
          - scipy==1.10.1
          - pip:
            - azureml-defaults~=1.5     # Azure's own server
            - azureml-inference-server-http
            - inference-schema[numpy-support]>=1.8 ; python_version > "3"
            - --extra-index-url https://download.example.org/whl/cpu
            - --pre
            - torch==2.5.1+cpu
    """, "e")
    assert found == EnvironmentSpec(
        ("scipy==1.10.1", 'inference-schema[numpy-support]>=1.8 ; python_version > "3"',
         "torch==2.5.1+cpu"),
        "3.11",
        ("--extra-index-url", "https://download.example.org/whl/cpu", "--prerelease", "allow"),
    )
    assert found.names == ("scipy", "inference-schema", "torch")
    assert EnvironmentSpec.from_word(found.to_word()) == found
    assert EnvironmentSpec.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("conda", [None, "", "name: e\n", "dependencies:\n", {"dependencies": []}])
def test_a_file_that_asks_for_nothing_is_empty(conda: Any) -> None:
    assert from_conda(conda, "e") == EnvironmentSpec()


@pytest.mark.parametrize(("conda", "said"), [
    ("just text", "expected name, channels and dependencies"),
    ("a: [", "is no YAML"),
    ("dependencies: text", "expected a list"),
    ("dependencies: [7]", "expected a package or pip"),
    ("dependencies: [{npm: [x]}]", "expected a package or pip"),
    ("dependencies: ['numpy=1.2|=1.3']", "alternatives"),
    ("dependencies: ['numpy=>1']", "is no version"),
    ("dependencies: [ffmpeg, libgcc, numpy]", "ffmpeg, libgcc: known on conda's channels only"),
    ("dependencies: [{pip: ['numpy=1.2']}]", "'numpy=1.2' is no requirement"),
    ("dependencies: [{pip: ['-e .']}]", "'-e .'"),
    ("dependencies: [{pip: ['-r more.txt']}]", "only packages and --index-url"),
    ("dependencies: [{pip: ['./mine']}]", "is no requirement"),
    ("dependencies: [{pip: ['mine @ file:///mine']}]", "on the machine that declared it"),
    ("dependencies: [{pip: ['--index-url https://me:secret@host/simple']}]", "a password in it"),
])
def test_what_cannot_be_had_is_refused_by_name(conda: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=r"^environment e: ") as caught:
        from_conda(conda, "environment e")
    assert said in caught.value.message
    assert "secret" not in caught.value.message


def test_lines_of_a_requirements_file_are_read_as_pip_reads_them() -> None:
    lines = ["# all", "", "numpy>=1.22, \\", "<3", "six  # old", "-i https://host/simple",
             "humanize==4.9.0 --hash=sha256:abc"]
    assert from_lines(lines, "e") == EnvironmentSpec(
        ("numpy>=1.22,  <3", "six", "humanize==4.9.0"), "",
        ("--index-url", "https://host/simple"),
    )


def test_an_mlflow_model_s_requirements_are_its_environment(tmp_path: Path) -> None:
    assert of_mlflow_model(tmp_path) == EnvironmentSpec()
    (tmp_path / "conda.yaml").write_text("dependencies: [python=3.8.1, {pip: [six]}]")
    assert of_mlflow_model(tmp_path) == EnvironmentSpec(("six",))
    (tmp_path / "requirements.txt").write_text("humanize\n")
    assert of_mlflow_model(tmp_path) == EnvironmentSpec(("humanize",))
