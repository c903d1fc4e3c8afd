"""The inference server as a plain process."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from inferay.errors import InferayError
from inferay.serve.server.hosting import Hosted
from inferay.serve.server.spec import ServerSpec
from tests.serve.server.processes import Server


def test_it_serves_with_the_deployments_variables(start: Callable[..., Server]) -> None:
    server = start(
        "import os\n\ndef init():\n    global seen\n"
        "    seen = [os.environ['GREETING'], os.environ['AZUREML_MODEL_DIR']]\n\n"
        "def run(data):\n    return seen\n"
    )
    state = server.state()
    assert state["state"] == "Ready"
    found = httpx.get(f"http://127.0.0.1:{state['port']}/score")
    assert found.json() == ["hello", "/models/m"]


def test_sigterm_lets_it_answer_what_is_in_flight(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(f"""
import pathlib, time

FOLDER = pathlib.Path({str(tmp_path)!r})

def init():
    pass

def run(data):
    (FOLDER / "began").touch()
    while not (FOLDER / "go").exists():
        time.sleep(0.005)
    return "done"

def shutdown():
    (FOLDER / "shut").touch()
""")
    port = server.state()["port"]
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(httpx.get, f"http://127.0.0.1:{port}/score", timeout=30)
        while not (tmp_path / "began").exists():
            time.sleep(0.005)
        server.process.send_signal(signal.SIGTERM)
        (tmp_path / "go").touch()
        assert call.result().json() == "done"
    assert "INFO inferay.server: GET /score 200 " in server.end()   # the last lines too
    assert server.process.returncode == 0
    assert (tmp_path / "shut").exists()


def test_an_init_that_raises_ends_it_with_the_users_traceback(
    start: Callable[..., Server]
) -> None:
    server = start("def init():\n    raise ValueError('no weights')\n\ndef run(data):\n    pass\n")
    state = server.state()
    assert (state["state"], state["error"]["code"]) == ("Failed", "InitFailed")
    assert state["error"]["message"] == "init() of score.py failed: ValueError: no weights"
    said = server.end()
    assert server.process.returncode == 1
    assert said.startswith('Traceback (most recent call last):\n  File "score.py", line 2, in init')
    assert "inferay" not in said.replace("inferay-", "")


def test_a_port_that_is_taken_is_named(start: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start("def init():\n    pass\n\ndef run(data):\n    pass\n", port=port)
        assert server.state()["error"]["code"] == "PortInUse"
        assert f"cannot listen on port {port}" in server.end()
        assert server.process.returncode == 6


def test_a_registered_model_that_was_changed_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def init():\n    raise SystemExit\n")
    (tmp_path / "model.bin").write_text("changed")
    with pytest.raises(InferayError, match=r"changed last: model\.bin") as caught:
        Hosted(ServerSpec(
            name="svc", version="1", code_dir=str(tmp_path), scoring_script="score.py",
            model=str(tmp_path / "model.bin"), model_hash="0" * 64,
        ))
    assert caught.value.code == "ModelChanged"
