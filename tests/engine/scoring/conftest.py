from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from inferay.engine.scoring.script import ScoringScript


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Return an empty code folder."""
    folder = tmp_path / "code"
    folder.mkdir()
    return folder


@pytest.fixture
def write(code: Path) -> Callable[[str, str], Path]:
    """Write a file of the code folder, dedented."""

    def write_file(name: str, text: str) -> Path:
        path = code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    return write_file


@pytest.fixture
def load(
    code: Path, write: Callable[[str, str], Path], clean_modules: None
) -> Callable[..., ScoringScript]:
    """Load the text as score.py, or a file that is there already."""

    def load_script(
        text: str | None = None, name: str = "score.py", packages: tuple[str, ...] = ()
    ) -> ScoringScript:
        if text is not None:
            write(name, text)
        return ScoringScript.load(code, name, packages=packages)

    return load_script
