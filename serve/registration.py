"""How a replica enters the edge, stays in it, and leaves it without losing a request.

The edge is asked over HTTP. It may be silent at any time: then a replica goes on serving, and
tries again.
"""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from inferay.errors import InferayError
from inferay.serve.replica_spec import ReplicaSpec

_log = logging.getLogger("inferay.replica")

#: Between two announcements; without one for 10 s the edge looks whether a replica is gone.
ANNOUNCE_S = 2.0

#: Between two tries while the edge does not take us in: it may be restarting.
RETRY_S = 0.25

#: How long a replica that serves waits to be taken in before it says that it was not.
JOIN_S = 30.0

#: How long the edge gets for one answer.
ANSWER_S = 5.0

#: How long a failure is told to an edge that does not listen.
FAILURE_S = 5.0

#: How long a silent edge is told that a replica leaves: a restart of it takes less. After that its
#: HAProxy finds the port closed, and sends requests elsewhere.
LEAVE_S = 10.0

#: Of a shutdown: what is left for ending the server once the edge has let go.
STOP_S = 5.0

_LOOK_S = 0.02

#: Of the edge's answers, which have a few hundred.
ANSWER_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class Admission:
    """What the edge tells a replica that it has taken in.

    Attributes:
        secret: What requests of the edge carry.
        mirror_host: Where copies of requests are sent to.
        mirror_port: See `mirror_host`.
    """

    secret: str
    mirror_host: str
    mirror_port: int


class Registration:
    """A replica's membership of the edge; its methods block and may be called from any thread.

    Args:
        spec: What it is a replica of; with an `edge_url`.
        replica_id: Its own, among all replicas of the edge.
    """

    def __init__(self, spec: ReplicaSpec, replica_id: str) -> None:
        assert spec.edge_url is not None
        self._spec = spec
        self._id = replica_id
        self._edge = _Edge(spec.edge_url, spec.credential)
        self._thread: threading.Thread | None = None
        self._is_in = threading.Event()
        self._has_ended = threading.Event()

    def join(
        self, host: str, port: int, *, counters: Callable[[], Mapping[str, Any]],
        on_asking: Callable[[bool], None], on_admitted: Callable[[Admission], None],
        limit_s: float = JOIN_S,
    ) -> bool:
        """Announce this replica from now on; return whether the edge has taken it in, in time.

        Args:
            host: Where the edge reaches it: it listens already.
            port: See `host`.
            counters: What the edge is told of its work.
            on_asking: Called with True before each announcement, and with False after it: in
                between, requests may come with a secret that is not known yet.
            on_admitted: Called with each answer of the edge.
            limit_s: After this it goes on trying, and returns.
        """
        def body() -> dict[str, Any]:
            return self._of_revision | {
                "id": self._id, "host": host, "port": port,
                "requests_max": self._spec.requests_max, "counters": dict(counters()),
            }

        def announce() -> bool:
            on_asking(True)
            try:
                admission, is_in = self._edge.announce(body())
                on_admitted(admission)
            finally:
                on_asking(False)
            return is_in

        self._thread = threading.Thread(
            target=self._stay, args=[announce], name="registration", daemon=True
        )
        self._thread.start()
        is_in = self._is_in.wait(limit_s)
        if not is_in:
            _log.error(
                "the edge at %s has not taken this replica in within %g s; it gets no requests "
                "until it has", self._spec.edge_url, limit_s,
            )
        return is_in

    def leave_and_drain(self, in_flight: Callable[[], int]) -> bool:
        """Take no more requests, and wait for those that are in flight; return whether all ended.

        Idempotent. Blocks for as long as a request may take, and a margin.
        """
        until_s = time.monotonic() + self._spec.drain_s - STOP_S
        self._has_ended.set()
        if self._thread is not None:   # a late announcement would bring us back
            self._thread.join(ANSWER_S)
        self._leave(until_s)
        while in_flight() and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
        return not in_flight()

    def failed(self, error: InferayError, *, limit_s: float = FAILURE_S) -> None:
        """Tell why this replica cannot start; gives up after the limit if the edge is silent."""
        until_s = time.monotonic() + limit_s
        body = self._of_revision | {"replica": self._id, "error": error.as_dict()}
        while True:
            try:
                self._edge.tell_failure(body)
                return
            except _EdgeSilent as silent:
                if time.monotonic() >= until_s:
                    _log.warning("the edge was not told that this replica failed: %s", silent)
                    return
                time.sleep(RETRY_S)

    @property
    def _of_revision(self) -> dict[str, Any]:
        spec = self._spec
        return {
            "endpoint": spec.endpoint, "deployment": spec.deployment, "revision": spec.revision,
        }

    def _stay(self, announce: Callable[[], bool]) -> None:
        said = ""
        while not self._has_ended.is_set():
            try:
                is_in = announce()
                now_said = ""
            except _EdgeSilent as silent:
                is_in, now_said = False, str(silent)
            if now_said != said:   # once, not every time
                _log.warning(now_said or "the edge answers again")
                said = now_said
            if is_in:
                self._is_in.set()
            self._has_ended.wait(ANNOUNCE_S if is_in else RETRY_S)

    def _leave(self, until_s: float) -> None:
        silent_until_s = time.monotonic() + LEAVE_S
        while time.monotonic() < until_s:
            try:
                if self._edge.leave(self._id):
                    return
                silent_until_s = time.monotonic() + LEAVE_S
                time.sleep(_LOOK_S)
            except _EdgeSilent as silent:
                if not self._is_in.is_set():   # it never sent us anything
                    return
                if time.monotonic() >= silent_until_s:
                    _log.warning("the edge was not told that this replica leaves: %s", silent)
                    return
                time.sleep(RETRY_S)


class _EdgeSilent(Exception):
    """Raised when the edge gives no answer, or none that helps."""


class _Edge:
    """The edge's management API, for a replica; a connection for each question."""

    def __init__(self, url: str, credential: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._headers = {
            "authorization": f"Bearer {credential}", "content-type": "application/json",
        }

    def announce(self, body: Mapping[str, Any]) -> tuple[Admission, bool]:
        answer = self._ask("/replicas", body)
        try:
            mirror = answer["mirror"]
            admission = Admission(str(answer["secret"]), str(mirror["host"]), int(mirror["port"]))
            return admission, bool(answer["is_in"])
        except (KeyError, TypeError, ValueError):
            raise _EdgeSilent("what answers at the edge's address is no edge") from None

    def leave(self, replica_id: str) -> bool:
        return bool(self._ask(f"/replicas/{quote(replica_id)}/leave", {}).get("is_gone"))

    def tell_failure(self, body: Mapping[str, Any]) -> None:
        self._ask("/failures", body)

    def _ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the edge answers.

        Raises:
            _EdgeSilent: It does not answer, or refuses.
        """
        connection = http.client.HTTPConnection(self._host, self._port, timeout=ANSWER_S)
        try:
            connection.request("POST", path, json.dumps(body), self._headers)
            answer = connection.getresponse()
            content = answer.read(ANSWER_BYTES_MAX)
            found = json.loads(content) if content else {}
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _EdgeSilent(f"the edge does not answer: {error!r}") from None
        finally:
            connection.close()
        if answer.status >= 300 or not isinstance(found, dict):
            raise _EdgeSilent(f"the edge refuses this replica ({answer.status}): {content[:500]!r}")
        return found
