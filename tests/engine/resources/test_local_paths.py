from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from inferay.engine.resources import (
    BatchDeployment,
    CodeConfiguration,
    Data,
    Datastore,
    Environment,
    Model,
    load,
    resolve_local_paths,
)
from inferay.errors import InvalidInput


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _missing(path: Path) -> None:
    pass


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _empty_folders(path: Path) -> None:
    (path / "inner").mkdir(parents=True)


def _fifo_inside(path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "pipe")


def _dangling_inside(path: Path) -> None:
    path.mkdir()
    (path / "weights").symlink_to("/nowhere")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_missing, "no such file or directory"),
        (_dangling, "a link to nowhere, which does not exist"),
        (os.mkfifo, "expected a file or folder, got a FIFO"),
        (Path.mkdir, "empty folder"),
        (_empty_folders, "empty folder"),
        (_fifo_inside, "holds a FIFO"),
        (_dangling_inside, "holds a link to /nowhere, which does not exist"),
    ],
)
def test_a_model_that_cannot_be_uploaded_is_refused_with_its_line(
    make: Callable[[Path], None], reason: str
) -> None:
    make(Path("m"))
    Path("f.yml").write_text("name: d\nmodel:\n  type: custom_model\n  path: m\n")
    with pytest.raises(InvalidInput) as caught:
        load(BatchDeployment, "f.yml")
    assert str(caught.value).startswith(f"f.yml:4: model.path: {reason}: {Path.cwd()}/m")
    assert str(caught.value).isprintable()


def test_an_unreadable_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("m").write_text("x")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InvalidInput, match=r"path: unreadable \(permission denied\)"):
        load(Model, None, name="m", path="m")


def test_uris_and_references_stay_as_they_are() -> None:
    for uri in ("https://h/x", "s3://b/k", "azureml://datastores/d/paths/x", "runs:/1/model"):
        assert load(Model, None, name="m", path=uri).entity.path == uri


def test_data_must_be_the_kind_that_it_says() -> None:
    Path("a.csv").write_text("1")
    assert load(Data, None, name="d", path="file:a.csv", type="uri_file").entity.path == str(
        Path("a.csv").absolute()
    )
    with pytest.raises(InvalidInput, match=r"path: expected a folder, got a file"):
        load(Data, None, name="d", path="a.csv")
    with pytest.raises(InvalidInput, match=r"path: expected a file, got a folder"):
        load(Data, None, name="d", path=".", type="uri_file")


def _deployment(script: str = "score.py") -> str:
    Path("f.yml").write_text(
        f"name: d\ncode_configuration:\n  code: src\n  scoring_script: {script}\n"
    )
    return "f.yml"


def test_code_must_be_a_folder_with_the_script_in_it() -> None:
    with pytest.raises(InvalidInput, match=r"^f.yml:3: code_configuration.code: no such file"):
        load(BatchDeployment, _deployment())
    Path("src").mkdir()
    Path("src/other.py").write_text("")
    with pytest.raises(InvalidInput, match=r"^f.yml:4: code_configuration.scoring_script: no such"):
        load(BatchDeployment, _deployment())
    Path("src/score.py").mkdir()
    with pytest.raises(InvalidInput, match=r"scoring_script: a directory, expected a file"):
        load(BatchDeployment, _deployment())
    os.mkfifo("src/pipe.py")
    with pytest.raises(InvalidInput, match=r"code_configuration.code: holds a FIFO"):
        load(BatchDeployment, _deployment("pipe.py"))


def test_a_script_may_not_lead_out_of_the_code_folder() -> None:
    Path("src").mkdir()
    Path("outside.py").write_text("")
    Path("src/score.py").symlink_to("../outside.py")
    with pytest.raises(InvalidInput, match=r"scoring_script: .* leads out of the code folder"):
        load(BatchDeployment, _deployment())


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"def run(:\n", r"score.py:1: SyntaxError: "),
        (b"x = 1\n  y = 2\n", r"score.py:2: SyntaxError: unexpected indent"),
        (b"\x00", r"score.py"),
        (b"(" * 10_000, r"score.py"),
        (b"# \xff\n", r"score.py"),
    ],
)
def test_a_script_that_does_not_parse_is_refused_unless_that_is_skipped(
    source: bytes, reason: str
) -> None:
    Path("src").mkdir()
    Path("src/score.py").write_bytes(source)
    with pytest.raises(
        InvalidInput, match=rf"^f.yml:4: code_configuration.scoring_script: .*{reason}"
    ):
        load(BatchDeployment, _deployment())
    load(BatchDeployment, _deployment(), skip_script_validation=True)


def test_a_script_with_a_doubtful_escape_is_no_concern() -> None:
    Path("src").mkdir()
    Path("src/score.py").write_text('PATTERN = "\\d"\n')
    load(BatchDeployment, _deployment())


def test_a_broken_conda_file_is_named_with_its_line() -> None:
    Path("f.yml").write_text("name: e\nimage: i\nconda_file: conda.yml\n")
    with pytest.raises(InvalidInput, match=r"^f.yml:3: conda_file: no such file or dir.*conda.yml"):
        load(Environment, "f.yml")
    Path("conda.yml").write_text("a: 1\na: 2\n")
    with pytest.raises(InvalidInput, match=r"^f.yml:3: conda_file: .*conda.yml:2:1: duplicate key"):
        load(Environment, "f.yml")
    Path("conda.yml").write_text("dependencies:\n- pip:\n  - -r no.txt\n")
    with pytest.raises(InvalidInput, match=r"conda_file: pip requirements .*no.txt: no such file"):
        load(Environment, "f.yml")


def test_a_build_folder_needs_its_dockerfile() -> None:
    Path("ctx").mkdir()
    Path("ctx/x").write_text("")
    with pytest.raises(
        InvalidInput, match=r"build.dockerfile_path: no such file: .*ctx/Dockerfile"
    ):
        load(Environment, None, ["build.path=ctx"], name="e")
    entity = load(Environment, None, ["build={path: ctx, dockerfile_path: x}"], name="e").entity
    assert entity.build is not None
    assert entity.build.path == str(Path("ctx").absolute())


def test_a_local_datastore_is_absolute_but_not_looked_at() -> None:
    entity = load(Datastore, None, name="d", path="not-there").entity
    assert entity.path == str(Path("not-there").absolute())


def test_entities_made_in_python_are_resolved_in_a_copy_and_twice_changes_nothing() -> None:
    Path("m").mkdir()
    Path("m/w").write_text("")
    Path("src").mkdir()
    Path("src/score.py").write_text("")
    Path("conda.yml").write_text("name: x\n")
    entity = BatchDeployment(
        name="d",
        model=Model(path="m"),
        environment=Environment(image="i", conda_file="conda.yml"),
        code_configuration=CodeConfiguration(code="src", scoring_script="score.py"),
    )
    resolved = resolve_local_paths(entity)
    assert isinstance(entity.model, Model)
    assert entity.model.path == "m"
    assert isinstance(resolved.environment, Environment)
    assert resolved.environment.conda_file == {"name": "x"}
    assert resolve_local_paths(resolved, Path("/")) == resolved
    with pytest.raises(InvalidInput, match=r"^model.path: no such file or directory: /nope"):
        resolve_local_paths(BatchDeployment(name="d", model=Model(path="nope")), Path("/"))
