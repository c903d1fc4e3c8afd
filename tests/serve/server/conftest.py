from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from inferay.serve.server.calls import Batching
from inferay.serve.server.hosting import Hosted
from inferay.serve.server.limits import Limits
from inferay.serve.server.serving import Serving
from inferay.serve.server.spec import ServerSpec
from tests.serve.server import processes
from tests.serve.server.processes import Server

#: Starts a server over the text of a script; returns a client of it.
Serve = Callable[..., httpx.Client]


@pytest.fixture
def anyio_backend() -> str:
    """Run the tests that are coroutines on asyncio."""
    return "asyncio"


@pytest.fixture
def serve(
    tmp_path: Path, clean_modules: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Serve]:
    """Serve scripts over HTTP, each on a port of its own."""
    running: list[tuple[Serving, httpx.Client]] = []
    for name in ("AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT", "AZUREML_MODEL_DIR"):
        monkeypatch.setenv(name, "")   # put back as it was

    def start(
        text: str, limits: Limits | None = None, files: dict[str, str] | None = None,
        batching: Batching | None = None,
    ) -> httpx.Client:
        code = tmp_path / f"code{len(running)}"
        code.mkdir()
        body = textwrap.dedent(text)
        if "def init" not in body:
            body = f"def init():\n    pass\n\n{body}"
        (code / "score.py").write_text(body)
        for name, content in (files or {}).items():
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            (code / name).write_text(content)
        hosted = Hosted(ServerSpec(
            name="svc", version="1", code_dir=str(code), scoring_script="score.py",
            limits=limits or Limits(), batching=batching,
        ))
        serving = Serving(hosted.app, "127.0.0.1", 0)
        serving.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{serving.port}", timeout=30)
        running.append((serving, client))
        return client

    yield start
    for serving, client in running:
        client.close()
        serving.stop(timeout_s=10)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start servers as processes, which end with the module."""
    servers: list[Server] = []

    def start_server(code: str, port: int = 0) -> Server:
        servers.append(processes.start(tmp_path_factory.mktemp("server") / "it", code, port))
        return servers[-1]

    yield start_server
    for server in servers:
        server.kill()
