"""The repository as others get it: pins, paths, links, targets and the wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PARTS = ("engine", "jobs", "serve")

#: Folders of the machines that this was written on, in two pieces: this file is checked too.
MACHINE_PATHS = tuple(f"/{name}/" for name in ("work", "root"))


def tracked_files() -> list[Path]:
    """Return the files that git tracks or would take in; links and what is gone are left out."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")
    files = [ROOT / name for name in names if name]
    return [file for file in files if file.is_file() and not file.is_symlink()]


# -- requirements.lock


def pins() -> list[str]:
    """Return the lock's entries, each with its hashes, as one line."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip()]


def test_every_pin_is_exact_and_has_hashes() -> None:
    assert len(pins()) > 50
    for pin in pins():
        assert re.match(r"[a-z0-9._-]+==\S+ ", pin), pin[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", pin), pin[:80]


def test_the_lock_names_no_index_and_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert not re.search(r"index-url|find-links|trusted-host|@ ", text)


def test_the_lock_pins_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"],
              *project["project"]["optional-dependencies"]["demo"]]
    names = {re.split(r"[\[<>=~! ]", one)[0].lower().replace("_", "-") for one in wanted}
    assert names <= {pin.split("==")[0] for pin in pins()}


# -- the checkout


def test_no_tracked_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {path}"
        for file in tracked_files() for path in MACHINE_PATHS
        if re.search(rb"(?<![\w.$}-])" + path.encode(), file.read_bytes())
    ]
    assert not found


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_a_relative_link_to_its_folder(part: str) -> None:
    link = ROOT / "src" / "inferay" / part
    assert link.is_symlink()
    assert os.readlink(link) == f"../../{part}"
    assert (link / "__init__.py").is_file()


@pytest.mark.parametrize("target", ["install", "demo", "test", "lint", "bench", "lock"])
def test_the_makefile_has_the_target(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert target in re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()


def test_ci_runs_make_targets_and_is_executable() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    targets = re.findall(r"^make (\w+)$", script.read_text(), re.MULTILINE)
    assert targets == ["install", "lint", "test"]


# -- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of what git tracks: building leaves folders behind."""
    source = tmp_path_factory.mktemp("source")
    out = tmp_path_factory.mktemp("wheel")
    for file in tracked_files():
        copy = source / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    for part in PARTS:
        (source / "src" / "inferay" / part).symlink_to(f"../../{part}")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(out), str(source)],
        check=True, capture_output=True, text=True,
    )
    [path] = out.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.slow
def test_the_wheel_has_every_module_as_a_file_of_inferay(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for file in tracked_files():
        name = file.relative_to(ROOT).as_posix()
        if name.endswith(".py") and name.startswith(PARTS):
            assert f"inferay/{name}" in names
        elif name.endswith(".py") and name.startswith("src/inferay/"):
            assert name.removeprefix("src/") in names
    links = [info.filename for info in wheel.infolist() if (info.external_attr >> 28) == 0o12]
    assert not links


@pytest.mark.slow
def test_the_wheel_installs_nothing_beside_inferay(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"inferay"}


@pytest.mark.slow
def test_the_wheel_has_the_data_of_the_package(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "inferay/py.typed" in names
    assert "inferay/control/migrations/script.py.mako" in names
    assert any(re.fullmatch(r"inferay/control/migrations/versions/\d{4}_\w+\.py", name)
               for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_wheel_has_the_command(wheel: zipfile.ZipFile) -> None:
    [entry] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "inferay = inferay.cli.main:main" in wheel.read(entry).decode()
