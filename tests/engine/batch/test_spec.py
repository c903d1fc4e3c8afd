from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.batch.spec import JobSpec, hash_of, hash_path
from inferay.errors import InferayError, InvalidInput


@pytest.fixture
def spec(make_spec: Callable[..., JobSpec]) -> JobSpec:
    made = make_spec(environment_variables={"A": "1"}, error_threshold=3)
    return replace(made, packages=("scikit-learn",), hashes={"code": "c"})


def test_a_spec_survives_storing(spec: JobSpec) -> None:
    assert JobSpec.from_dict(json.loads(spec.to_bytes())) == spec


def test_a_spec_of_a_later_version_is_refused(spec: JobSpec) -> None:
    data = json.loads(spec.to_bytes())
    assert (data["format"], data["version"]) == ("inferay.job", 1)
    with pytest.raises(InferayError, match="version 2"):
        JobSpec.from_dict({**data, "version": 2})
    with pytest.raises(InferayError):
        JobSpec.from_dict({**data, "format": "other"})


@pytest.mark.parametrize("change", [
    lambda data: data.pop("input"), lambda data: data.update(surplus=1),
    lambda data: data["settings"].update(surplus=1), lambda data: data["workers"].update(x=1),
])
def test_a_spec_with_a_field_too_few_or_too_many_is_refused(
    spec: JobSpec, change: Callable[[dict[str, Any]], object]
) -> None:
    data = json.loads(spec.to_bytes())
    change(data)
    with pytest.raises(InvalidInput, match="no job spec"):
        JobSpec.from_dict(data)


def test_the_hash_of_a_value_does_not_depend_on_the_order_of_its_keys() -> None:
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})


def test_the_hash_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a.py").write_text("a")
        (folder / os.fsdecode(b"\xff")).write_text("b")
    before = hash_path(one)
    assert before == hash_path(two)
    (two / "__pycache__").mkdir()
    (two / "__pycache__" / "a.pyc").write_text("cache")
    assert hash_path(two) == before
    (two / "sub" / "a.py").rename(two / "sub" / "b.py")
    assert hash_path(two) != before
    (one / "sub" / "a.py").write_text("c")
    assert hash_path(one) != before


def test_the_hash_of_a_file_is_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    (tmp_path / "c").write_text("y")
    assert hash_path(tmp_path / "a") == hash_path(tmp_path / "b") != hash_path(tmp_path / "c")
