"""`--vscode-debug`: a real debugpy, driven as an editor does."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import httpx
import pytest

from inferay.cli.main import run
from inferay.local import LocalClient
from tests.edges import wait_until
from tests.local.conftest import SCORE, Local
from tests.local.dap import Debugger

pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

#: Longer than the edge waits for a word of a replica, and than its request timeout would be.
STOPPED_S = 11.0


@pytest.fixture
def debugged(local: Local, monkeypatch: pytest.MonkeyPatch) -> Local:
    """Local mode on a machine without VS Code, with an endpoint."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    local.endpoint("debugged")
    return local


def begin(local: Local, score: str) -> tuple[Debugger, Path]:
    """Create a deployment with a timeout of a second; return a debugger for it, and its script."""
    local.write("debugged", "blue", score)
    text = (local.folder / "blue.yml").read_text().replace("60000", "1000")
    (local.folder / "blue.yml").write_text(text)
    created = local.good("online-deployment create -f blue.yml --all-traffic --vscode-debug")
    [attach] = json.loads((local.folder / ".vscode" / "launch.json").read_text())["configurations"]
    port = attach["connect"]["port"]
    assert f"127.0.0.1:{port}" in created.err
    return Debugger(port), Path(attach["pathMappings"][0]["remoteRoot"]) / "score.py"


class Asking(threading.Thread):
    """A request that waits for its answer."""

    def __init__(self, local: Local) -> None:
        super().__init__()
        self.answer: httpx.Response | None = None
        self._local = local
        self.start()

    def run(self) -> None:
        keys = LocalClient(self._local.home).online_endpoints.get_keys("debugged")
        with self._local.http() as client:
            self.answer = client.post(
                "/endpoints/debugged/score", content="[4, 2]",
                headers={"authorization": f"Bearer {keys['primaryKey']}"},
            )


def test_a_breakpoint_in_run_stops_it_and_nothing_else(debugged: Local) -> None:
    debugger, script = begin(debugged, SCORE)
    key = debugged.good("online-endpoint get-credentials -n debugged").json["primaryKey"]
    with debugger, debugged.http() as client:
        debugger.attach(script, line=7)
        asking = Asking(debugged)
        frame = debugger.wait_stopped()
        assert (frame["name"], frame["line"]) == ("run", 7)
        assert debugger.evaluate("data", frame) == "'[4, 2]'"
        until_s = time.monotonic() + 2.5   # longer than checks take, and the request's own timeout
        while time.monotonic() < until_s:
            alive = client.get("/endpoints/debugged/", headers={"authorization": f"Bearer {key}"})
            assert alive.status_code == 200
        assert asking.answer is None
        debugger.resume()
        asking.join(30)
    assert asking.answer is not None
    assert asking.answer.json() == {"version": 1, "got": [4, 2]}


@pytest.mark.slow
def test_a_script_of_coroutines_stands_still_for_long_and_serves_on(debugged: Local) -> None:
    debugger, script = begin(debugged, SCORE.replace("def run", "async def run"))
    [process] = [one.process for one in debugged.store.read().servers]
    with debugger:
        debugger.attach(script, line=7)
        asking = Asking(debugged)
        debugger.wait_stopped()
        time.sleep(STOPPED_S)   # what must not happen meanwhile has no event to wait for
        assert process.find() is not None
        assert asking.answer is None
        debugger.resume()
        asking.join(30)
    assert asking.answer is not None
    assert asking.answer.json() == {"version": 1, "got": [4, 2]}
    wait_until(lambda: debugged.invoke("debugged", 3).code == 0, "the next answer")


def test_without_debugpy_the_command_names_the_extra_that_brings_it(
    debugged: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    debugged.write("debugged", "blue")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    failed = debugged("online-deployment create -f blue.yml --vscode-debug")
    assert failed.code == 2
    assert "inferay[debug]" in failed.err


def test_debugging_is_of_local_mode(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["online-deployment", "create", "-f", "blue.yml", "--vscode-debug"]) == 2
    assert "--vscode-debug needs --local" in capsys.readouterr().err
