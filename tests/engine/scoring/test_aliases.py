from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.scoring.aliases import install_aliases
from inferay.engine.scoring.script import ScoringScript
from inferay.errors import UserCodeError


@pytest.fixture
def azureml(clean_modules: None) -> Any:
    install_aliases()
    return importlib.import_module("azureml")


@pytest.mark.usefixtures("azureml")
def test_a_script_imports_the_model_class_as_on_azure(
    load: Callable[..., ScoringScript], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "sk.pkl").write_text("")
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / "model"))
    script = load("""
        import azureml.core
        from azureml.core import Model as Same
        from azureml.core.model import Model

        def init():
            pass

        def run(mini_batch):
            assert Same is Model is azureml.core.model.Model
            return [Model.get_model_path("sk"), Model.get_model_path(model_name="sk", version=1)]
    """)
    assert script.run([]) == [str(tmp_path / "model" / "sk.pkl")] * 2


@pytest.mark.usefixtures("azureml")
def test_the_named_model_is_found_among_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / "models" / name).mkdir(parents=True)
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / "models"))
    model = sys.modules["azureml.core.model"].Model
    assert model.get_model_path("b") == str(tmp_path / "models" / "b")
    assert model.get_model_path("registered-name") == str(tmp_path / "models" / "a")


@pytest.mark.usefixtures("azureml")
@pytest.mark.parametrize("folder", ["", "empty"])
def test_a_deployment_without_a_model_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / folder) if folder else "")
    with pytest.raises(FileNotFoundError, match="no model 'm'"):
        sys.modules["azureml.core.model"].Model.get_model_path("m")


@pytest.mark.usefixtures("azureml")
def test_what_is_no_stand_in_is_a_missing_package(load: Callable[..., ScoringScript]) -> None:
    with pytest.raises(UserCodeError) as caught:
        load("from azureml.core.run import Run")
    assert caught.value.code == "PackageMissing"
    assert "'azureml'" in caught.value.message


def test_installing_twice_is_installing_once(azureml: Any) -> None:
    install_aliases()
    assert sys.modules["azureml"] is azureml


@pytest.mark.usefixtures("clean_modules")
def test_an_installed_azureml_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "azureml").mkdir()
    (tmp_path / "azureml" / "__init__.py").write_text("REAL = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    install_aliases()
    assert importlib.import_module("azureml").REAL
