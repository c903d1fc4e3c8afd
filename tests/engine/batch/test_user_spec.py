from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from inferay.engine.batch.memory import machine_bytes
from inferay.engine.batch.spec import JobSettings, WorkerSpec
from inferay.engine.batch.user_spec import LoadedSpec, read_user_spec
from inferay.errors import Conflict, InferayError, InvalidInput

BASE = """\
code_configuration: {code: ./src, scoring_script: score.py}
input: ./data
"""

Read = Callable[..., LoadedSpec]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for name in ("src", "data", "model"):
        (folder / name).mkdir(parents=True)
    (folder / "src" / "score.py").write_text("def run(mini_batch):\n    return mini_batch\n")
    (folder / "data" / "a.txt").write_text("a")
    (folder / "model" / "weights").write_text("1")
    return folder


@pytest.fixture
def read(folder: Path, tmp_path: Path) -> Read:
    def call(more: str = "", base: str = BASE) -> LoadedSpec:
        (folder / "spec.yml").write_text(base + more)
        return read_user_spec(folder / "spec.yml", {"INFERAY_HOME": str(tmp_path / "home")})

    return call


def test_what_is_left_out_has_azures_defaults(read: Read, folder: Path, tmp_path: Path) -> None:
    loaded = read()
    spec, home = loaded.spec, tmp_path / "home" / "datastores"
    assert loaded.warnings == []
    assert spec.settings == JobSettings(
        mini_batch_size=10, max_retries=3, timeout_s=30.0, error_threshold=-1,
        output_action="append_row", output_file_name="predictions.csv", logging_level="INFO",
    )
    assert replace(spec.workers, memory_bytes=None) == WorkerSpec(1, 1.0, 0.0)
    assert spec.workers.memory_bytes is not None
    assert machine_bytes() // 2 <= spec.workers.memory_bytes < machine_bytes()
    assert (spec.input, spec.input_type) == (str(folder / "data"), "uri_folder")
    assert (spec.code, spec.scoring_script) == (str(folder / "src"), "score.py")
    assert len(spec.name) == 36
    assert spec.output == str(home / "workspaceblobstore" / "azureml" / spec.name / "score")
    job = home / "workspaceartifactstore" / "ExperimentRun" / f"dcid.{spec.name}"
    assert (spec.work, spec.logs) == (str(job / "work"), str(job / "logs"))
    assert (spec.model_dir, spec.hashes["model"]) == ("", "")


def test_what_is_given_wins(read: Read, folder: Path) -> None:
    spec = read("""\
output_path: ./out
job_name: nightly-7
model: {path: ./model}
resources: {instance_count: 2}
environment_variables: {A: b}
settings:
  mini_batch_size: 3
  max_concurrency_per_instance: 2
  error_threshold: 5
  output_action: summary_only
  output_file_name: rows.csv
  logging_level: debug
  retry_settings: {max_retries: 1, timeout: 7}
""").spec
    assert spec.settings == JobSettings(
        mini_batch_size=3, max_retries=1, timeout_s=7.0, error_threshold=5,
        output_action="summary_only", output_file_name="rows.csv", logging_level="DEBUG",
        environment_variables={"A": "b"},
    )
    assert (spec.name, spec.workers.count) == ("nightly-7", 4)
    assert spec.output == str(folder / "out")
    assert spec.work == str(folder / "out" / ".inferay" / "nightly-7" / "work")
    assert spec.model_dir == str(folder)   # AZUREML_MODEL_DIR/model/weights, as Azure has it


def test_paths_start_at_the_yaml_and_not_where_the_command_runs(
    read: Read, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read("output_path: ../out\n").spec.output == str(tmp_path / "out")
    (folder / "spec.yml").write_text(BASE)
    monkeypatch.chdir(folder)
    assert read_user_spec(Path("spec.yml")).spec.input == str(folder / "data")


def test_an_output_on_s3_holds_the_work_too_and_the_logs_stay_here(
    read: Read, folder: Path
) -> None:
    spec = read("output_path: s3://bucket/some/out\njob_name: nightly\n").spec
    assert spec.output == "s3://bucket/some/out"
    assert spec.work == "s3://bucket/some/out/.inferay/nightly/work"
    assert os.path.isabs(spec.logs)


def test_an_input_may_be_a_file_or_lie_in_a_datastore(
    read: Read, folder: Path, tmp_path: Path
) -> None:
    base = BASE.splitlines()[0] + "\n"
    spec = read("input: data/a.txt\n", base).spec
    assert (spec.input, spec.input_type) == (str(folder / "data" / "a.txt"), "uri_file")
    assert read(f"input: file://{folder}/data\n", base).spec.input == str(folder / "data")
    stored = tmp_path / "home" / "datastores" / "workspaceblobstore" / "d"
    stored.mkdir(parents=True)
    uri = "azureml://datastores/workspaceblobstore/paths/d"
    assert read(f"input: {uri}\n", base).spec.input == str(stored)


def test_the_same_name_and_content_give_the_same_job(read: Read, folder: Path) -> None:
    first, again = read("job_name: j\n").spec, read("job_name: j\n").spec
    assert first == again
    (folder / "src" / "score.py").write_text("other")
    assert read("job_name: j\n").spec.hashes["code"] != first.hashes["code"]


def test_an_output_in_the_copy_that_ray_deletes_is_refused(tmp_path: Path, folder: Path) -> None:
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.parent.mkdir(parents=True)
    folder.rename(copy)
    (copy / "spec.yml").write_text(BASE + "output_path: ./out\n")
    with pytest.raises(InvalidInput, match="copy of the working directory that Ray deletes"):
        read_user_spec(copy / "spec.yml")
    (copy / "spec.yml").write_text(BASE + f"output_path: {tmp_path}/out\n")
    assert read_user_spec(copy / "spec.yml").spec.output == str(tmp_path / "out")


@pytest.mark.parametrize(("more", "said"), [
    ("inptu: x\n", "spec.yml:3: inptu"),
    ("output_pth: ./out\n", "did you mean 'output_path'"),
    ("settings:\n  mini_batch_siz: 3\n", "spec.yml:4: settings.mini_batch_siz"),
    ("settings: {mini_batch_size: none}\n", "mini_batch_size"),
    ("settings: {output_file_name: rows.arrow}\n", "output_file_name"),
    ("input_type: uri_file\n", "input_type"),
    ("input_type: mltable\n", "input_type"),
    ("job_name: a/b\n", "job_name"),
    ("model: azureml:m:1\n", "registered, which takes a control plane"),
    ("model: {path: ./nothing}\n", "nothing"),
    ("output_path: abfss://bucket/x\n", "abfss://bucket: expected abfss://CONTAINER@"),
    ("output_path: https://host/x?key=secret\n", "nothing can be written there"),
    ("input: ./other\n", "spec.yml:3"),   # a duplicate key
])
def test_what_is_wrong_is_named_in_one_line(read: Read, more: str, said: str) -> None:
    with pytest.raises(InferayError) as caught:
        read(more)
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert not isinstance(caught.value, Conflict)


@pytest.mark.parametrize(("base", "said"), [
    ("input: ./data\n", "code_configuration"),
    ("code_configuration: {code: ./src, scoring_script: score.py}\n", "input"),
    ("code_configuration: {code: ./src, scoring_script: none.py}\ninput: ./data\n", "none.py"),
    ("code_configuration: {code: ./none, scoring_script: s.py}\ninput: ./data\n", "none"),
    ("code_configuration: {code: ./src, scoring_script: score.py}\ninput: ./none\n", "none"),
])
def test_what_is_missing_is_named_in_one_line(read: Read, base: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read("", base)
    assert said in caught.value.message
    assert "spec.yml" in caught.value.message
    assert "\n" not in caught.value.message
