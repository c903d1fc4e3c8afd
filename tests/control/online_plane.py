"""A control plane with a real edge, and a stand-in for Ray Serve whose replicas are real ports."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import httpx

from inferay.control.fleet import Fleet
from inferay.engine.ray_dashboard import RayAddress
from inferay.errors import Unavailable
from inferay.serve.applications import ApplicationState
from inferay.serve.edge.client import EdgeClient
from inferay.serve.replica_spec import ApplicationSpec
from tests.control.conftest import Plane, ThreadJobs
from tests.edges import RunningEdge, wait_until
from tests.serve.edge.conftest import Container

#: In a script: its constructor fails as the text after it says.
RAISES = "# raises "

#: In a script: its process dies without a word to the edge.
DIES = "# dies"

_ids = itertools.count()


class Wires:
    """Connections to an edge; made once, for each costs a fifth of a second."""

    def __init__(self, edge: RunningEdge) -> None:
        self.edge = edge

    @cached_property
    def public(self) -> httpx.Client:
        """To the public port."""
        return self.edge.http()

    @cached_property
    def management(self) -> httpx.Client:
        """To where replicas register."""
        return httpx.Client(base_url=self.edge.management, trust_env=False, timeout=30)

    @cached_property
    def client(self) -> EdgeClient:
        """The control plane's own."""
        return self.edge.client()

    def close(self) -> None:
        for one in (self.public, self.management, self.client):
            one.close()

    def tell(self, application: ApplicationSpec, path: str, body: dict[str, Any]) -> Any:
        """Tell the edge something as a replica of the application does."""
        spec = application.spec
        key = self.edge.credential(spec.endpoint, spec.deployment, spec.revision)
        answer = self.management.post(
            path, headers={"authorization": f"Bearer {key}"}, json={
                "endpoint": spec.endpoint, "deployment": spec.deployment,
                "revision": spec.revision, **body,
            },
        )
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None


class StandInServe:
    """Ray Serve's REST API, with a port per replica that registers with the edge as ours do."""

    def __init__(self, wires: Wires) -> None:
        self.address = RayAddress("", "http://head-1", None)
        self.puts: list[dict[str, dict[str, Any]]] = []
        self.containers: dict[str, dict[str, Container]] = {}
        self.known: dict[str, ApplicationSpec] = {}
        self.failed: dict[str, str] = {}
        self.is_away = False
        #: Applications whose replicas do not start.
        self.is_stuck = False
        #: Constructors fail.
        self.store_is_away = False
        #: Endpoints that the edge had when an application of theirs was removed.
        self.routed_at_removal: list[str] = []
        self._wires = wires

    def put(self, applications: Iterable[ApplicationSpec]) -> None:
        self._check_there()
        wanted = {one.name: one for one in applications}
        self.puts.append({name: one.to_dict() for name, one in wanted.items()})
        # Serve goes on with what it gave up if it is told something else of it.
        self.failed = {name: said for name, said in self.failed.items()
                       if wanted.get(name) == self.known[name]}
        self.known |= wanted
        for name in self.containers.keys() - wanted.keys():
            self._remove(name, 0)
            del self.containers[name]
        for name, one in wanted.items():
            self._bring(name, one)

    def status(self, max_age_s: float = 0.0) -> dict[str, ApplicationState]:
        self._check_there()
        return {
            name: ApplicationState("DEPLOY_FAILED", self.failed[name], 0)
            if name in self.failed else ApplicationState("DEPLOYING", "waits for CPUs", len(ports))
            for name, ports in self.containers.items()
        }

    def scale(self, name: str, count: int) -> None:
        """Have as many replicas of an application as its load may want; they are up."""
        self._bring(name, replace(self.known[name], instances=count))
        ids = self.containers[name].keys()
        wait_until(
            lambda: ids <= {one.id for one in self._wires.client.state().replicas if one.is_up},
            "the replicas to be up",
        )

    def forget(self) -> None:
        """Be a head that was restarted: nothing runs any more."""
        for name in self.containers:
            self._remove(name, 0)
        self.containers.clear()
        self.failed.clear()

    def _bring(self, name: str, application: ApplicationSpec) -> None:
        ports = self.containers.setdefault(name, {})
        if name in self.failed:
            return
        spec = application.spec
        script = (Path(spec.server.code_dir) / spec.server.scoring_script).read_text()
        if self.store_is_away:
            self.failed[name] = "OSError: the store is away"
        elif DIES in script:
            self.failed[name] = "The replica died unexpectedly: exit code 3"
        elif RAISES in script:
            self._tell_failure(application, script.split(RAISES)[1].splitlines()[0])
        elif not self.is_stuck:
            while len(ports) < application.instances:
                id = f"r{next(_ids)}"
                ports[id] = container = Container(script.split('"')[1])
                self._wires.tell(application, "/replicas", {
                    "id": id, "host": "127.0.0.1", "port": container.port, "counters": {},
                })
            self._remove(name, application.instances)

    def _remove(self, name: str, left: int) -> None:
        ports, application = self.containers[name], self.known[name]
        if len(ports) > left:
            spec = application.spec
            self.routed_at_removal.append(
                routed(self._wires.edge, spec.endpoint, spec.deployment)
            )
        for id in list(ports)[left:]:
            wait_until(partial(self._left, id, application), f"{id} to be gone")
            ports.pop(id).stop()

    def _left(self, id: str, application: ApplicationSpec) -> bool:
        return bool(self._wires.tell(application, f"/replicas/{id}/leave", {})["is_gone"])

    def _tell_failure(self, application: ApplicationSpec, said: str) -> None:
        self._wires.tell(application, "/failures", {"replica": "r", "error": {
            "code": "InitFailed", "message": f"init() raised {said}", "target": "score.py",
            "details": [{"code": "Detail", "message": f"Traceback\n{said}"}],
        }})

    def _check_there(self) -> None:
        if self.is_away:
            raise Unavailable("Ray does not answer", code="RayUnavailable")


def routed(edge: RunningEdge, endpoint: str, deployment: str) -> str:
    """Return which revision of the deployment the edge has, or ""."""
    kept = json.loads((edge.folder / "edge" / "state.json").read_bytes())
    for one in kept["table"]["endpoints"]:
        for each in one["deployments"]:
            if (one["name"], each["name"]) == (endpoint, deployment):
                return str(each["revision"])
    return ""


class OnlinePlane(Plane):
    """A plane whose edge is real; `turn` turns all that the process turns."""

    def __init__(self, home: Path, wires: Wires) -> None:
        self.wires = wires
        self.serve = StandInServe(wires)
        self.is_edge_away = False
        super().__init__(home, ThreadJobs())
        self.http.__enter__()   # one event loop for all its requests, not one each
        self.context.serve = lambda: self.serve   # type: ignore[assignment,return-value]
        self.context.edge = self._edge_client
        config = wires.edge.config
        self.workspace.registration_key.write_bytes(Path(config.registration_key).read_bytes())
        self.workspace.token_key.write_text(Path(str(config.token_key)).read_text())
        (self.workspace.run / "edge.json").write_text(json.dumps({"url": wires.edge.management}))

    def restart(self) -> None:
        super().restart()
        self.fleet = Fleet(self.context)

    def turn(self) -> None:
        super().turn()
        self.fleet._serve_again_s = self.fleet._edge_looked_s = float("-inf")
        self.fleet.turn_serve()
        self.fleet.turn_edge()

    def look_at_serve(self) -> None:
        """Turn as after the time between two looks at Serve."""
        self.fleet._serve_looked_s = float("-inf")
        self.turn()

    def finish(self, answer: httpx.Response) -> dict[str, Any]:
        """Turn until the operation of an answer has ended; return the operation."""
        assert answer.status_code < 300, answer.text
        key = answer.headers["Azure-AsyncOperation"].rsplit("/", 1)[-1]
        pause = threading.Event()
        for _ in range(600):
            found: dict[str, Any] = self.http.get(f"/v1/operations/{key}").json()
            if found["status"] != "InProgress":
                return found
            self.turn()
            pause.wait(0.01)
        raise AssertionError(json.dumps(found, indent=1))

    def put_code(self, version: str, script: str) -> None:
        """Register code `c` in a version; the word in quotes is what its replicas answer."""
        source = self.workspace.home.parent / "code" / version
        source.mkdir(parents=True, exist_ok=True)
        (source / "score.py").write_text(script)
        body = {"properties": {"codeUri": str(source)}}
        answer = self.http.put(f"/v1/codes/c/versions/{version}", json=body)
        if answer.status_code == 201:
            self.turn()

    def clear(self) -> None:
        """Delete every online endpoint, and be as at the start."""
        self.serve.is_stuck = self.serve.is_away = self.serve.store_is_away = False
        self.is_edge_away = False
        for one in self.http.get("/v1/onlineEndpoints").json()["value"]:
            self.finish(self.http.delete(f"/v1/onlineEndpoints/{one['name']}"))
        self.turn()
        self.serve.puts.clear()
        self.serve.routed_at_removal.clear()
        self.restart()

    def put_endpoint(self, name: str = "digits", **properties: Any) -> dict[str, Any]:
        body = {"properties": {"authMode": "Key", **properties}}
        return self.finish(self.http.put(f"/v1/onlineEndpoints/{name}", json=body))

    def put_deployment(
        self, name: str = "blue", version: str = "one", *, endpoint: str = "digits",
        instances: int = 1, **properties: Any,
    ) -> httpx.Response:
        address = f"/v1/onlineEndpoints/{endpoint}/deployments/{name}"
        code = {"codeId": f"azureml:c:{version}", "scoringScript": "score.py"}
        answer: httpx.Response = self.http.put(address, json={
            "sku": {"capacity": instances},
            "properties": {"codeConfiguration": code, **properties},
        })
        return answer

    def deployment(self, name: str = "blue") -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(
            f"/v1/onlineEndpoints/digits/deployments/{name}"
        ).json()["properties"]
        return found

    def keys(self, name: str = "digits") -> dict[str, str]:
        found: dict[str, str] = self.http.post(f"/v1/onlineEndpoints/{name}/listKeys").json()
        return found

    def score(self, bearer: str, *, endpoint: str = "digits", **headers: str) -> httpx.Response:
        """Ask the edge, as a client does."""
        answer: httpx.Response = self.wires.public.post(
            f"/endpoints/{endpoint}/score", json={},
            headers={"authorization": f"Bearer {bearer}", **headers},
        )
        return answer

    def answered_by(self, **headers: str) -> str:
        """Return which code answers now."""
        answer = self.score(self.keys()["primaryKey"], **headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["by"])

    def close(self) -> None:
        self.serve.is_away = False
        self.serve.put([])
        self.http.__exit__()
        super().close()

    def _edge_client(self) -> EdgeClient:
        if self.is_edge_away:
            raise Unavailable("the edge does not answer", code="EdgeUnavailable")
        return self.wires.client
