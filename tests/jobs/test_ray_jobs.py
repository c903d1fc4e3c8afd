from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.ray_dashboard import RayAddress
from inferay.errors import InvalidInput, Unavailable
from inferay.jobs.ray_jobs import RayJobs, check_name, submission_id

TOKEN = "s3cret"


class Head(ThreadingHTTPServer):
    """Ray's job API as its documents and its source have it, with jobs that do what a test says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.bodies: list[dict[str, Any]] = []
        self.agents: list[str] = []
        #: Answers instead of the API: status and body.
        self.instead: tuple[int, bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Head

    def do_GET(self) -> None:
        if not self._is_ours():
            return
        words = self.path.strip("/").split("/")
        if len(words) == 2:
            self._say(200, list(self.server.jobs.values()))
        elif words[2] in self.server.jobs:
            self._say(200, self.server.jobs[words[2]])
        else:
            self._say(404, f"Job {words[2]} does not exist")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self._is_ours():
            return
        words = self.path.strip("/").split("/")
        if words[-1] == "stop":
            known = self.server.jobs.get(words[2])
            if known is None:
                self._say(404, f"Job {words[2]} does not exist")
                return
            known["status"] = "STOPPED"
            self._say(200, {"stopped": True})
            return
        wanted = json.loads(body)
        self.server.bodies.append(wanted)
        key = wanted["submission_id"]
        if key in self.server.jobs:
            self._say(500, f"Traceback (most recent call last):\n  ...\nValueError: Job with "
                           f"submission_id {key} already exists. Please use a different one.")
            return
        if "boom" in wanted["entrypoint"]:
            self._say(500, "Traceback (most recent call last):\n  ...\nRuntimeError: no agent")
            return
        self.server.jobs[key] = {
            "type": "SUBMISSION", "submission_id": key, "status": "PENDING", "message": "queued",
        }
        self._say(200, {"job_id": key, "submission_id": key})

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _is_ours(self) -> bool:
        self.server.agents.append(self.headers["User-Agent"])
        if self.server.instead is not None:
            self._answer(*self.server.instead)
            return False
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, b"Unauthorized")
            return False
        return True

    def _say(self, status: int, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        self._answer(status, text.encode())

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def head() -> Iterator[Head]:
    head = Head()
    thread = threading.Thread(target=head.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield head
    head.shutdown()
    head.server_close()
    thread.join()


@pytest.fixture
def ray(head: Head, tmp_path: Path) -> Iterator[RayJobs]:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    ray = RayJobs(RayAddress("127.0.0.1:1", head.url, tmp_path / "token"))
    yield ray
    ray.close()


CALLS: dict[str, Callable[[RayJobs], object]] = {
    "submit": lambda ray: ray.submit("j", "python x", {}),
    "driver": lambda ray: ray.driver("j"),
    "drivers": lambda ray: ray.drivers(),
    "message": lambda ray: ray.message("j"),
    "stop": lambda ray: ray.stop("j"),
}


def test_a_driver_is_submitted_with_no_cpu_of_its_own_and_time_to_end(
    head: Head, ray: RayJobs
) -> None:
    ray.submit("j", "python -m inferay.jobs run s.json", {"INFERAY_HOME": "/h"})
    (body,) = head.bodies
    assert body == {
        "submission_id": "j", "entrypoint": "python -m inferay.jobs run s.json",
        "entrypoint_num_cpus": 0,
        "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "6", "INFERAY_HOME": "/h"}},
    }
    assert TOKEN not in json.dumps(body)
    assert set(head.agents) == {"inferay"}


def test_a_second_submission_with_the_same_id_is_the_same_job(head: Head, ray: RayJobs) -> None:
    for _ in range(2):
        ray.submit("j", "python x", {})
    assert len(head.bodies) == 2
    assert list(head.jobs) == ["j"]


def test_a_refused_submission_says_rays_last_line(ray: RayJobs) -> None:
    with pytest.raises(Unavailable, match="status 500: RuntimeError: no agent") as caught:
        ray.submit("j", "boom", {})
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("status", "expected"), [
    ("PENDING", "alive"), ("RUNNING", "alive"), ("SUCCEEDED", "gone"), ("FAILED", "gone"),
    ("STOPPED", "gone"),
])
def test_a_driver_is_alive_or_gone_by_rays_state(
    head: Head, ray: RayJobs, status: str, expected: str
) -> None:
    head.jobs["j"] = {"submission_id": "j", "status": status, "message": None}
    head.jobs["other"] = {"submission_id": None, "status": "RUNNING"}   # a driver of `ray.init`
    assert ray.driver("j") == expected
    assert ray.drivers() == {"j": expected}
    assert ray.message("j") == ""


def test_an_unknown_driver_is_missing_and_can_be_stopped(ray: RayJobs) -> None:
    assert ray.driver("j") == "missing"
    assert ray.drivers() == {}
    assert ray.message("j") == "Ray does not know it"
    ray.stop("j")


def test_a_stopped_driver_is_gone(head: Head, ray: RayJobs) -> None:
    ray.submit("j", "python x", {})
    ray.stop("j")
    ray.stop("j")
    assert ray.driver("j") == "gone"
    head.jobs["j"]["message"] = "first line\nTraceback"
    assert ray.message("j") == "first line"


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_token_is_said_as_such_and_not_shown(
    head: Head, tmp_path: Path, call: str
) -> None:
    (tmp_path / "wrong").write_text("wr0ng")
    ray = RayJobs(RayAddress("", head.url, tmp_path / "wrong"))
    with pytest.raises(Unavailable, match="refuses this workspace's token") as caught:
        CALLS[call](ray)
    assert "wr0ng" not in caught.value.message
    ray.close()


def test_a_token_that_cannot_be_read_is_said_as_such(head: Head, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot read Ray's token"):
        RayJobs(RayAddress("", head.url, tmp_path / "none"))


@pytest.mark.parametrize("call", CALLS)
def test_nobody_who_listens_is_said_as_such(call: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))   # bound, not listening: refused
        ray = RayJobs(RayAddress("", f"http://127.0.0.1:{taken.getsockname()[1]}", None))
        with pytest.raises(Unavailable, match="does not answer"):
            CALLS[call](ray)
        ray.close()


@pytest.mark.parametrize(("call", "instead"), [
    *((call, (200, content)) for call in ("driver", "drivers", "message") for content in
      (b"<html>hello</html>", b"[7]", b"null", b'{"status"', b"\xff")),
    ("driver", (200, b'{"a": 1}')), ("drivers", (200, b'{"a": 1}')),
    *((call, (status, b"oops")) for call in ("driver", "drivers", "message", "submit")
      for status in (302, 500, 502)),
])
def test_garbage_is_no_answer_of_ray(
    head: Head, ray: RayJobs, call: str, instead: tuple[int, bytes]
) -> None:
    head.instead = instead
    with pytest.raises(Unavailable):
        CALLS[call](ray)


def test_epochs_have_the_jobs_name_and_then_a_number() -> None:
    assert [submission_id("j", epoch) for epoch in (1, 2, 3)] == ["j", "j-e1", "j-e2"]


@pytest.mark.parametrize("name", ["j-e1", "j-e20", "a-e1-e2"])
def test_a_job_name_that_could_be_another_jobs_submission_id_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"the job name '{name}' ends in -e and a number"):
        check_name(name)


def test_a_job_name_that_files_could_not_have_is_refused() -> None:
    check_name("n" * 200)
    with pytest.raises(InvalidInput, match="has 201 characters; choose one of at most 200"):
        check_name("n" * 201)


@pytest.mark.parametrize("name", [
    "e1", "j-e", "j-e1x", "j-edge", "6f1ed002-ab5f-4c1d-8c4e-e12345678901",
])
def test_other_job_names_are_taken_guids_of_any_digits_too(name: str) -> None:
    check_name(name)
