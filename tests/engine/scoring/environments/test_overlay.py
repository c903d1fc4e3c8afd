"""Environments that uv really builds, with small packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inferay.engine.scoring.environments import EnvironmentSpec, ensure
from inferay.engine.scoring.environments.spec import from_conda
from inferay.errors import InvalidInput, UserCodeError

#: Another version than the cluster's.
SIX = "six==1.15.0"

SHOW = """
import importlib.metadata, json, sys
import inferay, ray, six, yaml
print(json.dumps([six.__version__, importlib.metadata.version("six"), ray.__version__,
                  inferay.__file__, sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of overlays: a build takes seconds."""
    return tmp_path_factory.mktemp("environments")


def spec(*requirements: str, python: str = "") -> EnvironmentSpec:
    return EnvironmentSpec(requirements, python)


def shown(*command: str) -> list[object]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[object] = json.loads(done.stdout)
    return found


def test_what_the_cluster_has_already_is_not_built(tmp_path: Path) -> None:
    wanted = spec("six", "pandas>=2", "uvicorn[standard]", "nowhere ; python_version < '3'")
    assert str(ensure(wanted, tmp_path)) == sys.executable
    assert list(tmp_path.iterdir()) == []


def test_another_version_is_built_once_beside_all_that_the_cluster_has(place: Path) -> None:
    import ray

    import inferay

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: ensure(spec(SIX, "pandas"), place), range(3)))
    assert len(set(found)) == 1
    version, noted, ray_version, ours, _ = shown(str(found[0]), "-c", SHOW)
    assert (version, noted) == ("1.15.0", "1.15.0")
    assert (ray_version, ours) == (ray.__version__, inferay.__file__)
    [packages] = found[0].parents[1].glob("lib/python*/site-packages")
    assert [path.name for path in packages.glob("*.dist-info")] == ["six-1.15.0.dist-info"]
    assert [path.name for path in place.glob(".build-*")] == []


def test_a_build_that_was_killed_is_begun_anew_by_what_runs_in_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERAY_ENVIRONMENTS", str(place))
    wanted = spec(SIX, "pandas")
    (ensure(wanted).parents[1] / "ready").unlink()
    module = [sys.executable, "-m", "inferay.engine.scoring.environments", wanted.to_word()]
    assert shown(*module, "-c", SHOW, "a b")[::4] == ["1.15.0", ["a b"]]


@pytest.mark.parametrize(("requirements", "said"), [
    (("ray==2.9.0",), "ray==2.9.0"),
    (("protobuf==3.20.0",), "you require protobuf==3.20.0"),
    (("no-such-package-of-inferay",), "no-such-package-of-inferay was not found"),
])
def test_what_cannot_go_together_is_told_in_uv_s_own_words(
    requirements: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserCodeError, match="cannot be built: its packages do not go") as caught:
        ensure(spec(*requirements), tmp_path)
    assert caught.value.code == "EnvironmentFailed"
    assert said in str(caught.value.details)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("python", ["3.8", "3.99", ">=3.99"])
def test_another_python_is_refused_before_anything_is_built(python: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="the environment wants Python"):
        ensure(spec(SIX, python=python), tmp_path)
    assert list(tmp_path.iterdir()) == []


#: Stands in for micromamba, which no package index has: it notes its words and makes a prefix.
MICROMAMBA = """#!/bin/sh
set -e
echo "$@" >> "$(dirname "$0")/words"
while [ "$1" != --prefix ]; do shift; done
case "$*" in *nosuchthing*) echo "error: nothing provides nosuchthing"; exit 1;; esac
mkdir -p "$2/bin" "$2/lib/python3.11/site-packages"
echo "VALUE = 7" > "$2/lib/python3.11/site-packages/only_conda.py"
echo "six = None" > "$2/lib/python3.11/site-packages/six.py"
printf '#!/bin/sh\\necho tool\\n' > "$2/bin/only-tool"
chmod +x "$2/bin/only-tool"
"""


@pytest.fixture
def micromamba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with a program called micromamba."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "micromamba").write_text(MICROMAMBA)
    (folder / "micromamba").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_what_conda_alone_has_is_installed_by_it_behind_the_clusters_packages(
    tmp_path: Path, micromamba: Path
) -> None:
    found = from_conda(
        {"channels": ["mine", "conda-forge"],
         "dependencies": ["python=3.11", "only-conda=1.2", "nvidia::other", "numpy"]}, "e"
    )
    assert (found.conda, found.requirements) == (("only-conda=1.2", "nvidia::other"), ("numpy",))
    python = ensure(found, tmp_path)
    assert ensure(EnvironmentSpec.from_word(found.to_word()), tmp_path) == python
    said = (micromamba / "words").read_text().splitlines()
    assert len(said) == 1   # built once
    assert said[0].endswith(
        "--override-channels --channel=mine --channel=conda-forge python=3.11 only-conda=1.2 "
        "nvidia::other"
    )
    show = (
        "import json, subprocess, only_conda, six, ray; print(json.dumps([only_conda.VALUE, "
        "six.__name__ == 'six' and bool(six.__version__), "
        "subprocess.check_output(['only-tool'], text=True)]))"
    )
    assert shown(str(python), "-c", show) == [7, True, "tool\n"]


def test_what_conda_does_not_have_is_told_in_its_own_words(
    tmp_path: Path, micromamba: Path
) -> None:
    found = from_conda({"dependencies": ["nosuchthing"]}, "e")
    with pytest.raises(UserCodeError, match="conda cannot install its packages") as failed:
        ensure(found, tmp_path)
    assert failed.value.details == "error: nothing provides nosuchthing"


def test_a_node_without_conda_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidInput, match="needs ffmpeg: known on conda's channels only, and the"):
        ensure(EnvironmentSpec(conda=("ffmpeg",)), tmp_path)
