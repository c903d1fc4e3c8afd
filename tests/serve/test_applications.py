from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.ray_dashboard import RayAddress
from inferay.errors import InvalidInput, Unavailable
from inferay.serve.applications import ServeApplications
from inferay.serve.replica_spec import ApplicationSpec, ReplicaSpec
from inferay.serve.server.spec import ServerSpec

TOKEN = "s3cret"

#: What Ray 2.60 answered of a deployment whose constructor ended its process.
DETAILS: dict[str, Any] = {
    "status": "DEPLOY_FAILED", "message": "Failed to update the deployments ['replica'].",
    "deployments": {"replica": {
        "status": "DEPLOY_FAILED", "message": "The deployment failed to start 1 times in a row.",
        "replicas": [{"state": "RUNNING"}, {"state": "STARTING"}],
    }},
}


class Head(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.looks = 0
        self.answer: tuple[int, bytes] = (200, b"")
        self.applications: dict[str, Any] = {}


class Handler(BaseHTTPRequestHandler):
    server: Head

    def do_GET(self) -> None:
        self.server.looks += 1
        self._say(200, json.dumps({"applications": self.server.applications}).encode())

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(json.loads(body))
        self._say(*self.server.answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _say(self, status: int, body: bytes) -> None:
        is_ours = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        status, body = (status, body) if is_ours else (401, b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def head() -> Iterator[Head]:
    with Head() as head:
        thread = threading.Thread(target=head.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield head
        head.shutdown()
        thread.join()


@pytest.fixture
def serve(head: Head, tmp_path: Path) -> Iterator[ServeApplications]:
    (tmp_path / "token").write_text(TOKEN)
    url = f"http://127.0.0.1:{head.server_address[1]}"
    found = ServeApplications(RayAddress("", url, tmp_path / "token"))
    yield found
    found.close()


def application(deployment: str = "blue") -> ApplicationSpec:
    server = ServerSpec("svc", "1", "/code", "score.py")
    return ApplicationSpec(ReplicaSpec(server, "digits", deployment, "r1"))


def test_all_applications_are_declared_at_once_and_without_a_proxy(
    serve: ServeApplications, head: Head
) -> None:
    serve.put([application("blue"), application("green")])
    (body,) = head.bodies
    assert body["proxy_location"] == "Disabled"
    assert [one["name"] for one in body["applications"]] == ["digits.blue.r1", "digits.green.r1"]


def test_what_serve_refuses_is_said_in_its_own_words(serve: ServeApplications, head: Head) -> None:
    head.answer = (400, b"Traceback (most recent call last):\nValueError: no such policy")
    with pytest.raises(InvalidInput, match="refuses the applications: ValueError: no such policy"):
        serve.put([application()])


def test_a_state_has_the_deployments_own_words_first(serve: ServeApplications, head: Head) -> None:
    head.applications = {"digits.blue.r1": DETAILS, "new": {"status": "NOT_STARTED",
                         "message": "", "deployments": {}}}
    found = serve.status()
    failed, new = found["digits.blue.r1"], found["new"]
    assert failed.has_failed
    assert (failed.message, failed.replicas) == (
        "The deployment failed to start 1 times in a row.", 1
    )
    assert (new.status, new.message, new.has_failed, new.replicas) == ("NOT_STARTED", "", False, 0)


def test_a_recent_answer_is_used_again_where_it_will_do(
    serve: ServeApplications, head: Head
) -> None:
    assert serve.status(60) == {}
    head.applications = {"digits.blue.r1": DETAILS}
    assert serve.status(60) == {}
    assert len(serve.status()) == len(serve.status(60)) == 1
    assert head.looks == 2


def test_what_is_not_rays_answer_is_unavailable(serve: ServeApplications, head: Head) -> None:
    head.answer = (500, b"<html>")
    with pytest.raises(Unavailable, match="answered status 500"):
        serve.put([application()])
    head.applications = {"digits.blue.r1": {"odd": 1}}
    with pytest.raises(Unavailable, match="not Ray's"):
        serve.status()


def test_a_wrong_token_is_said(head: Head, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("x")
    url = f"http://127.0.0.1:{head.server_address[1]}"
    serve = ServeApplications(RayAddress("", url, tmp_path / "wrong"))
    with pytest.raises(Unavailable, match="refuses this workspace's token"):
        serve.status()
    serve.close()
