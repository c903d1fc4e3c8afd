from __future__ import annotations

import io
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

import inferay.client.resources
from inferay import Client
from inferay.client.http import error_of
from inferay.client.jobs import Job
from inferay.control.tokens import create_token
from inferay.engine.resources import (
    BatchDeployment,
    BatchEndpoint,
    Compute,
    Data,
    Datastore,
    Environment,
    Model,
    load,
)
from inferay.errors import (
    Conflict,
    InferayError,
    InvalidInput,
    JobError,
    NotAuthorized,
    NotFound,
    Unavailable,
)
from tests.cli.conftest import Served


def deploy(client: Client, name: str = "blue") -> None:
    client.batch_endpoints.create_or_update(load(BatchEndpoint, Path("endpoint.yml")).entity)
    entity = load(
        BatchDeployment, Path("deployment.yml"), name=name, endpoint_name="digits"
    ).entity
    client.batch_deployments.create_or_update(entity, set_default=True)


def test_entities_come_back_as_they_were_put(client: Client, project: Path) -> None:
    endpoint = BatchEndpoint(name="round", description="d", tags={"a": "b"})
    assert client.batch_endpoints.create_or_update(endpoint).tags == {"a": "b"}
    assert client.batch_endpoints.get("round").description == "d"
    assert "round" in [one.name for one in client.batch_endpoints.list()]
    compute = Compute(name="small", size="Standard_DS1_v2", max_instances=3)
    assert client.computes.create_or_update(compute).max_instances == 3
    assert client.computes.get("small").size == "Standard_DS1_v2"
    store = Datastore(name="mine", type="local", path=str(project / "data"))
    client.datastores.create_or_update(store)
    assert "mine" in [one.name for one in client.datastores.list()]
    client.datastores.delete("mine")
    with pytest.raises(NotFound, match="mine"):
        client.datastores.get("mine")
    client.batch_endpoints.delete("round")
    with pytest.raises(NotFound, match="round"):
        client.batch_endpoints.get("round")


def test_assets_are_numbered_found_and_deleted(client: Client, project: Path) -> None:
    model = Model(name="m", path=str(project / "src"), description="d")
    assert client.models.create_or_update(model).version == "1"
    assert client.models.create_or_update(model).version == "2"
    assert client.models.get("m").version == "2"
    assert client.models.get("m", "1").description == "d"
    assert client.models.get("m", label="latest").version == "2"
    assert [one.version for one in client.models.list("m")] == ["2", "1"]
    assert [one.version for one in client.models.list()] == ["2"]
    client.models.delete("m", "2")
    assert client.models.get("m").version == "1"
    data = client.data.create_or_update(Data(name="d", version="1", path=str(project / "data")))
    assert (data.name, data.version) == ("d", "1")
    environment = Environment(name="e", version="x", image="i", conda_file={"name": "c"})
    assert client.environments.create_or_update(environment).conda_file is not None
    with pytest.raises(NotFound):
        client.environments.get("e", label="stable")


def test_a_models_content_can_be_had_again_and_overwrites_nothing(
    client: Client, project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "net"
    (folder / "inner").mkdir(parents=True)
    (folder / "weights").write_bytes(b"1")
    (folder / "inner" / "a b#%41").write_bytes(b"2")
    client.models.create_or_update(Model(name="kept", path=str(folder)))
    client.models.create_or_update(Model(name="single", path=str(folder / "weights")))
    target = tmp_path / "down"
    files = client.models.download("kept", "1", target)
    assert {str(file.relative_to(target)): file.read_bytes() for file in files} == {
        "kept/net/weights": b"1", "kept/net/inner/a b#%41": b"2"
    }
    assert client.models.download("single", "1", target) == [target / "single" / "weights"]
    with pytest.raises(Conflict, match="exists already; choose another download path"):
        client.models.download("kept", "1", target)
    with pytest.raises(NotFound, match="there is no model kept version 7"):
        client.models.download("kept", "7", target)


def test_a_job_is_invoked_awaited_downloaded_and_its_logs_are_read(
    client: Client, project: Path
) -> None:
    deploy(client)
    job = client.batch_endpoints.invoke("digits", input="data", mini_batch_size=3)
    assert job.wait(timeout_s=60).status == "Completed"
    assert job.wait() is job   # at once
    files = job.download(project / "out", output_name="score")
    assert [path.name for path in files] == ["_SUCCESS.json", "predictions.csv"]
    with pytest.raises(Conflict, match="exists already"):
        job.download(project / "out", output_name="score")
    with pytest.raises(NotFound, match="'other'"):
        job.download(project / "out", output_name="other")
    for name, size in job.logs().items():
        assert len(job.log(name)) == size
        assert job.log(name, offset=size) == b""
    with pytest.raises(NotFound):
        job.log("none.txt")
    assert client.batch_endpoints.list_jobs("digits")[0].name == job.name
    assert client.batch_deployments.list_jobs("blue", "digits")[0].name == job.name
    assert client.jobs.list(max_results=1)[0].name == job.name
    with pytest.raises(InvalidInput):
        client.jobs.list(max_results=0)
    everything = client.jobs.download(job.name, download_path=project / "all", all=True)
    assert {path.name for path in files} <= {path.name for path in everything}


def test_a_job_that_is_not_done_in_time_goes_on_and_can_be_canceled(
    client: Client, slow: Path
) -> None:
    deploy(client, "slow")
    job = client.batch_endpoints.invoke("digits", input="data", deployment_name="slow")
    with pytest.raises(Unavailable, match=r"has not ended within 0\.1 s"):
        job.wait(timeout_s=0.1)
    with pytest.raises(Conflict, match="when it has ended"):
        job.download("out")
    assert client.jobs.cancel(job.name).name == job.name
    slow.touch()
    with pytest.raises(JobError):
        job.wait(timeout_s=60)
    assert job.status == "Canceled"
    assert job.resume().wait(timeout_s=60).status == "Completed"
    with pytest.raises(Conflict):
        job.cancel()
    with pytest.raises(Conflict):
        job.resume()


def test_streaming_a_failed_job_shows_the_reason_and_raises_it(
    client: Client, project: Path
) -> None:
    (project / "src" / "score.py").write_text(
        "def init():\n    raise KeyError('no weights')\n\ndef run(mini_batch):\n    return []\n"
    )
    deploy(client, "bad")
    job = client.batch_endpoints.invoke("digits", input="data", deployment_name="bad")
    out = io.StringIO()
    with pytest.raises(JobError, match="no weights") as caught:
        job.stream(out)
    assert 'File "score.py", line 2, in init' in out.getvalue()
    assert 'File "score.py", line 2, in init' in (caught.value.details or "")
    assert out.getvalue().splitlines()[-1].startswith(f"Job {job.name}: Failed.")


class Wavering(httpx.BaseTransport):
    """A way to the control plane that is cut while `is_cut`."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner
        self.is_cut = False
        self.failures = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_cut:
            self.failures += 1
            raise httpx.ConnectError("Connection refused", request=request)
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


def test_a_control_plane_that_goes_away_and_comes_back_is_waited_for(
    client: Client, slow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferay.client.jobs.POLL_S", 0.01)
    deploy(client, "wavering")
    job = client.batch_endpoints.invoke("digits", input="data", deployment_name="wavering")
    http: Any = client.http._client
    way = http._transport = Wavering(http._transport)
    for looks, _ in enumerate(job.watch()):
        way.is_cut = looks > 1 and way.failures < 5
        if way.failures == 5:
            slow.touch()
    assert (way.failures, job.status) == (5, "Completed")


def test_a_control_plane_that_stays_away_is_given_up(
    client: Client, slow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferay.client.jobs.POLL_S", 0.0)
    monkeypatch.setattr("inferay.client.jobs.ABSENCE_S", 0.05)
    deploy(client, "away")
    job = client.batch_endpoints.invoke("digits", input="data", deployment_name="away")
    http: Any = client.http._client
    way = Wavering(http._transport)
    inner, http._transport = http._transport, way
    way.is_cut = True
    with pytest.raises(Unavailable, match="does not answer"):
        job.wait()
    http._transport = inner
    slow.touch()
    assert job.wait(timeout_s=60).status == "Completed"


def test_what_is_wrong_with_an_invocation_is_an_error_of_its_class(
    client: Client, project: Path
) -> None:
    deploy(client)
    cases: list[tuple[type[InferayError], dict[str, Any]]] = [
        (InvalidInput, {}),
        (InvalidInput, {"input": "none"}),
        (InvalidInput, {"input": "data", "input_type": "mltable"}),
        (InvalidInput, {"input": "data", "input_type": "uri_file"}),
        (InvalidInput, {"input": "data", "mini_batch_size": 0}),
        (InvalidInput, {"input": "data", "settings": {"miniBatchSiz": 1}}),
        (NotFound, {"input": "azureml:ghost:1"}),
        (NotFound, {"input": "data", "deployment_name": "ghost"}),
        (Conflict, {"input": "data", "output_path": "endpoint.yml"}),
    ]
    for cls, arguments in cases:
        with pytest.raises(cls) as caught:
            client.batch_endpoints.invoke("digits", **arguments)
        assert "\n" not in caught.value.message, arguments
    with pytest.raises(NotFound, match="did you mean 'digits'"):
        client.batch_endpoints.invoke("digist", input="data")


@pytest.mark.parametrize(("status", "cls"), [
    (400, InvalidInput), (401, NotAuthorized), (403, NotAuthorized), (404, NotFound),
    (405, InvalidInput), (409, Conflict), (413, InvalidInput), (418, InferayError),
    (307, Unavailable), (429, Unavailable), (500, InferayError), (503, Unavailable),
])
def test_a_status_is_an_error_of_its_class(status: int, cls: type[InferayError]) -> None:
    request = httpx.Request("GET", "https://x/y")
    body = {"error": {"code": "C", "message": "m", "target": "t", "details": [{"message": "d"}]}}
    error = error_of(httpx.Response(status, json=body, request=request))
    assert (type(error), error.code, error.message, error.target, error.details) == (
        cls, "C", "m", "t", "d",
    )
    for content in (b"<html>", b"[]", b'{"error": 7}', b'{"error": {}}', b""):
        error = error_of(httpx.Response(status, content=content, request=request))
        assert (type(error), error.message) == (
            cls, f"GET https://x/y was answered with status {status}",
        )


def test_a_client_on_another_machine_uploads_what_it_names(
    client: Client, served: Served, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(client)
    monkeypatch.setenv("INFERAY_URL", served.url + "/")
    monkeypatch.setenv("INFERAY_CA", str(served.plane.workspace.ca_certificate))
    with served.plane.database.write() as session:
        token = create_token(session, "remote", "scorer", "digits", 1)
    monkeypatch.setenv("INFERAY_TOKEN", token)
    with Client() as remote:
        assert remote.http.address.is_local is False
        job = remote.batch_endpoints.invoke("digits", input="data")
        assert job.wait(timeout_s=60).status == "Completed"
        one = remote.batch_endpoints.invoke("digits", input="data/3.txt").wait(timeout_s=60)
        rows = one.download(project / "one", output_name="score")[1].read_text()
        assert rows == "3.txt\n"
        (project / "empty").mkdir()
        with pytest.raises(InvalidInput, match="empty has no files") as nothing:
            remote.batch_endpoints.invoke("digits", input="empty")
        assert nothing.value.code == "NoInput"
        with pytest.raises(NotAuthorized, match="reader"):
            remote.batch_endpoints.list()
        with pytest.raises(NotAuthorized):
            remote.jobs.cancel(job.name)
    files = job_output(job)
    assert "predictions.csv" in files


def job_output(job: Job) -> list[str]:
    path = job.to_dict()["outputs"]["score"]["path"]
    return [found.name for found in Path(path).iterdir()]


def test_an_address_that_is_wrong_is_an_error_in_one_line(
    client: Client, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERAY_URL", served.url)
    with pytest.raises(InvalidInput, match="INFERAY_TOKEN is not"):
        Client()
    monkeypatch.setenv("INFERAY_TOKEN", "wrong")
    monkeypatch.setenv("INFERAY_CA", str(tmp_path / "none.pem"))
    with pytest.raises(InvalidInput, match="cannot read the CA"):
        Client()
    (tmp_path / "none.pem").write_text("no certificate")
    with pytest.raises(InvalidInput, match="cannot read the CA"):
        Client()
    monkeypatch.delenv("INFERAY_CA")   # the system's trust does not have ours
    with Client() as strange, pytest.raises(Unavailable, match="does not answer"):
        strange.jobs.list()
    monkeypatch.setenv("INFERAY_CA", str(served.plane.workspace.ca_certificate))
    with Client() as strange, pytest.raises(NotAuthorized, match="a valid token"):
        strange.jobs.list()
    monkeypatch.setenv("INFERAY_URL", "https://[::1")
    with pytest.raises(InvalidInput, match="INFERAY_URL"):
        Client()
    with pytest.raises(InvalidInput, match="a URL needs a token"):
        Client("https://x")
    monkeypatch.delenv("INFERAY_URL")
    monkeypatch.setenv("INFERAY_HOME", str(tmp_path))
    with pytest.raises(Unavailable, match="inferay up"):
        Client()


@pytest.mark.parametrize(("answer", "said"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "with JSON"),
    (b"HTTP/1.1 307 Moved\r\nLocation: /x\r\nContent-Length: 2\r\n\r\n{}", "with status 307"),
])
def test_what_listens_but_is_no_control_plane_is_said_as_such(answer: bytes, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(url, "t") as client, pytest.raises(Unavailable, match=said):
            client.jobs.list()
        thread.join()


def test_an_operation_that_fails_raises_its_reason(
    client: Client, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "src" / "lock").symlink_to("nothing")
    monkeypatch.setattr(inferay.client.resources, "resolve_local_paths", lambda entity: entity)
    with pytest.raises(InferayError, match="cannot be copied"):
        client.models.create_or_update(Model(name="broken", path=str(project / "src")))
    monkeypatch.setattr(inferay.client.resources, "OPERATION_S", -1.0)
    with pytest.raises(Unavailable, match="has not ended"):
        inferay.client.resources.wait_for(client.http, "x")
