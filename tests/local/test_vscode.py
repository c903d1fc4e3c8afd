from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.resources import CodeConfiguration, OnlineDeployment
from inferay.local.vscode import offer

BLUE = OnlineDeployment(
    name="blue", endpoint_name="digits",
    code_configuration=CodeConfiguration(code="/code", scoring_script="score.py"),
)


@pytest.fixture(autouse=True)
def _no_editor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


def launch(folder: Path) -> Any:
    return json.loads((folder / ".vscode" / "launch.json").read_text())


def test_a_folder_without_a_launch_file_gets_one_that_attaches_to_the_deployment(
    tmp_path: Path,
) -> None:
    said = offer(tmp_path, BLUE, 5678)
    assert "127.0.0.1:5678" in said[0]
    assert launch(tmp_path)["configurations"] == [{
        "name": "inferay: digits/blue", "type": "debugpy", "request": "attach",
        "connect": {"host": "127.0.0.1", "port": 5678},
        "pathMappings": [{"localRoot": "/code", "remoteRoot": "/code"}], "justMyCode": True,
    }]


def test_what_a_launch_file_has_stays_and_our_own_configuration_is_replaced(
    tmp_path: Path,
) -> None:
    theirs = {"name": "Run", "type": "debugpy", "request": "launch"}
    (tmp_path / ".vscode").mkdir()
    (tmp_path / ".vscode" / "launch.json").write_text(
        json.dumps({"version": "0.2.0", "inputs": [], "configurations": [theirs]})
    )
    for port in (5678, 5679):
        offer(tmp_path, BLUE, port)
    found = launch(tmp_path)
    assert found["inputs"] == []
    assert found["configurations"][0] == theirs
    assert [one["connect"]["port"] for one in found["configurations"][1:]] == [5679]


@pytest.mark.parametrize("text", [
    "{ // a comment\n}", "[]", '{"configurations": 1}', '{"configurations": [1]}', "{}", "\xff",
])
def test_a_launch_file_that_cannot_be_read_is_left_alone_and_said(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / ".vscode" / "launch.json"
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    said = offer(tmp_path, BLUE, 5678)
    assert path.read_bytes() == text.encode("latin-1")
    assert "left as it is" in said[1]
    assert json.loads(said[2])["connect"]["port"] == 5678


def test_an_editor_on_the_path_is_opened_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "bin" / "code"
    code.parent.mkdir()
    code.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/opened\n")
    code.chmod(0o755)
    monkeypatch.setenv("PATH", str(code.parent))
    offer(tmp_path, BLUE, 5678)
    assert (tmp_path / "opened").read_text().strip() == str(tmp_path)
