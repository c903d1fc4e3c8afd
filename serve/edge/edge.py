"""The edge: keeps HAProxy true to the routing table and to the replicas that are there.

What it knows is on disk before HAProxy is told, so that a restart of either starts from the same
state with nobody else up. Every method blocks; one at a time works on HAProxy.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import resource
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inferay.errors import InvalidInput, NotAuthorized, NotFound, Unavailable
from inferay.serve.edge import render
from inferay.serve.edge.config import EdgeConfig
from inferay.serve.edge.haproxy import HAProxy, Known, find_binary
from inferay.serve.edge.registry import Registry, Replica
from inferay.serve.edge.render import Revision, Secrets, Server, Shape
from inferay.serve.edge.runtime import Refused, Seen
from inferay.serve.routing import RoutingTable, credential, digest_of_table

log = logging.getLogger(__name__)

#: The map that is empty but while a reload is under way.
CLOSING = "closing.map"

#: Between the first answer that closes its connection, and the reload: clients that wait longer
#: between two requests seldom send one in the millisecond in which it is closed.
CLOSE_S = 0.5

#: Connections at once, unless the process may open fewer files.
CONNECTIONS_MAX = 16_384


@dataclass(frozen=True)
class _Told:
    """What HAProxy was last told, by its reload and by map."""

    fixed: str
    maps: Mapping[str, Mapping[str, str]]


class Edge:
    """One edge, with its HAProxy.

    Args:
        config: Where it listens and what it keeps where.
        clock: Monotonic seconds.
    """

    def __init__(self, config: EdgeConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self._clock = clock
        self._lock = threading.RLock()
        self._folder = Path(config.folder)
        self._files = self._folder / "haproxy"
        self._registration_key = Path(config.registration_key).read_bytes().strip()
        self._admin_secret = Path(config.admin_secret).read_text().strip()
        self._registry = Registry()
        self._table = RoutingTable()
        self._slots: dict[Revision, int] = {}
        self._shape = Shape()
        self._told: _Told | None = None
        self._restarts = 0
        kept = self._kept()
        self._secret: str = kept.get("secret") or secrets.token_urlsafe(24)
        self._sockets = _socket_folder(kept.get("sockets"))
        known = kept.get("haproxy")
        self._haproxy = HAProxy(
            find_binary(config.haproxy), self._files / "haproxy.cfg", self._sockets,
            self._folder / "haproxy.log", Known(**known) if known else None,
        )
        self._restore(kept)

    # What the control plane asks.

    def check_admin(self, given: str) -> None:
        """Check the secret of the control plane.

        Raises:
            NotAuthorized: It is another one.
        """
        if not hmac.compare_digest(given.encode(), self._admin_secret.encode()):
            raise NotAuthorized("the edge's admin secret is needed", code="Unauthenticated")

    def publish(self, table: RoutingTable) -> None:
        """Carry out this table from now on; blocks until HAProxy does; idempotent.

        Raises:
            InvalidInput: A name in it cannot be one.
            Unavailable: HAProxy does not take it; it goes on as it was, and it is tried again.
        """
        check_names(table)
        with self._lock:
            self._table = table
            self._keep()
            self._apply()

    def state(self) -> dict[str, Any]:
        """Return what is there, as `client.EdgeState` reads it.

        Raises:
            Unavailable: HAProxy does not answer.
        """
        with self._lock:
            seen = {one.id: one for one in self._haproxy.runtime.servers()}
            now_s = self._clock()
            known = self._haproxy.known
            return {
                "table_digest": digest_of_table(self._table),
                "replicas": [
                    {"id": one.id, "endpoint": one.endpoint, "deployment": one.deployment,
                     "revision": one.revision, "host": one.host, "port": one.port,
                     "is_up": _takes_requests(seen.get(one.id)),
                     "is_leaving": one.is_leaving,
                     "in_flight": seen[one.id].open if one.id in seen else 0,
                     "counters": one.counters,
                     "announced_s_ago": round(now_s - one.announced_s, 3)}
                    for one in self._registry.replicas.values()
                ],
                "failures": list(self._registry.failures.values()),
                "haproxy": {"pid": known.pid if known else None, "restarts": self._restarts},
            }

    # What replicas ask.

    def check_credential(self, of: Revision, given: str) -> None:
        """Check the credential of a revision's replica.

        Raises:
            NotAuthorized: It is another one.
        """
        wanted = credential(self._registration_key, *of)
        if not hmac.compare_digest(given.encode(), wanted.encode()):
            raise NotAuthorized(
                f"this credential is not of {'/'.join(of)}", code="Unauthenticated"
            )

    def announce(self, replica: Replica) -> dict[str, Any]:
        """Take a replica in, or hear that it is still there.

        Returns:
            The secret that requests of the edge carry, where to send copies, and whether it is in.

        Raises:
            Unavailable: HAProxy does not take it; its next word is the next try.
        """
        with self._lock:
            if self._registry.announce(replica, self._clock()):
                self._keep()
                self._apply()
            is_in = not self._registry.replicas[replica.id].is_leaving
        return {
            "secret": self._secret, "is_in": is_in,
            "mirror": {"host": self.config.management_host, "port": self.config.mirror_port},
        }

    def replica_of(self, id: str) -> Revision:
        """Return what a replica is one of.

        Raises:
            NotFound: It is not known.
        """
        with self._lock:
            found = self._registry.replicas.get(id)
        if found is None:
            raise NotFound(f"there is no replica '{id}'", target=id)
        return found.of

    def leave(self, id: str) -> bool:
        """Send a replica no more requests; return whether none of its is left; idempotent.

        Raises:
            Unavailable: HAProxy does not answer.
        """
        with self._lock:
            replica = self._registry.replicas.get(id)
            if replica is not None and not replica.is_leaving:
                self._registry.leave(id)
                self._keep()
            self._apply()
            is_gone = all(one.id != id for one in self._haproxy.runtime.servers())
            if is_gone and replica is not None:
                del self._registry.replicas[id]
                self._keep()
        return is_gone

    def fail(self, of: Revision, replica: str, error: Mapping[str, Any]) -> None:
        """Keep why a replica of this revision could not start."""
        with self._lock:
            self._registry.fail(of, replica, error)
            self._keep()

    # What the edge does by itself.

    def open(self) -> None:
        """Start HAProxy, or take over the one that runs; blocks until it is as it shall be.

        Raises:
            Unavailable: It does not start.
        """
        with self._lock:
            if self._haproxy.runs() and self._haproxy.runtime.answers():
                log.info("HAProxy runs already, as process %s", self._haproxy.known)
                if self._kept().get("fixed") == self._fixed():
                    self._told = _Told(self._fixed(), {})
                self._apply()
            else:
                self._start()

    def haproxy_runs(self) -> bool:
        """Return whether HAProxy is there; cheap."""
        return self._haproxy.runs()

    def turn(self) -> None:
        """Start HAProxy again if it died; drop the replicas that are gone; try what failed."""
        with self._lock:
            if not self._haproxy.runs():
                log.error("HAProxy is gone; it is started again")
                self._restarts += 1
                self._start()
                return
            up = {one.id for one in self._haproxy.runtime.servers() if one.is_up}
            gone = self._registry.forget_silent(self._clock(), up)
            for one in gone:
                log.warning("replica %s of %s is gone without a word", one.id, "/".join(one.of))
            if gone:
                self._keep()
            self._apply()

    def reload(self) -> None:
        """Let a new HAProxy process take over, with nothing refused or dropped; blocks.

        Raises:
            Unavailable: It does not; the old one goes on.
        """
        with self._lock:
            self._told = None
            self._apply()

    def close(self) -> None:
        """End HAProxy, with what it has in flight answered; blocks."""
        with self._lock:
            self._haproxy.stop()
            shutil.rmtree(self._sockets, ignore_errors=True)
            (self._folder / "state.json").unlink(missing_ok=True)

    def _start(self) -> None:
        self._haproxy.end_orphans()
        self._assign()
        self._write_files()
        self._haproxy.start()
        self._told = _Told(self._fixed(), self._maps())
        self._keep()
        log.info("HAProxy listens on %s:%s", self.config.host, self.config.port)

    def _apply(self) -> None:
        """Bring HAProxy to what it shall be."""
        self._assign()
        if self._told is None or self._told.fixed != self._fixed():
            self._reload()
            self._told = _Told(self._fixed(), self._maps())
            self._keep()
        self._add_servers()
        self._commit_maps(self._told)
        self._remove_servers()

    def _reload(self) -> None:
        """Let the answers of a moment be the last on their connections, then reload; blocks.

        The worker that is replaced closes those that are idle, whatever is on its way there.
        """
        self._write_files()
        try:
            self._haproxy.runtime.replace_map(self._files / CLOSING, {"all": "yes"})
        except Refused as refused:   # it was started with a configuration that has no such map
            log.warning("connections in use may be closed by the reload: %s", refused.message)
        time.sleep(CLOSE_S)
        try:
            self._haproxy.reload()
        except Unavailable:
            self._haproxy.runtime.replace_map(self._files / CLOSING, {})
            raise

    def _add_servers(self) -> None:
        seen = {(one.slot, one.id) for one in self._haproxy.runtime.servers()}
        for slot, servers in self._servers().items():
            for server in servers:
                if (render.slot_name(slot), server.id) not in seen:
                    self._haproxy.runtime.add_server(render.slot_name(slot), server)

    def _commit_maps(self, told: _Told) -> None:
        maps = self._maps()
        # First what ends (credentials), then where requests go, then what may reach it.
        for name, entries in maps.items():
            if told.maps.get(name) != entries:
                self._write_map(name, entries)
                self._haproxy.runtime.replace_map(self._files / f"{name}.map", entries)
                self._told = told = replace(told, maps={**told.maps, name: entries})

    def _remove_servers(self) -> None:
        wanted = {
            (render.slot_name(slot), one.id)
            for slot, servers in self._servers().items() for one in servers
        }
        for one in self._haproxy.runtime.servers():
            if (one.slot, one.id) in wanted:
                continue
            if one.is_up:
                self._haproxy.runtime.drain_server(one.slot, one.id)
            elif one.open == 0:   # drained, or dead
                try:
                    self._haproxy.runtime.delete_server(one.slot, one.id)
                except Refused as refused:   # its last connection is being closed: next turn
                    log.info("%s", refused.message)

    # What it shall be.

    def _assign(self) -> None:
        """Give each revision a slot, and free those of revisions that are gone."""
        wanted = {
            (endpoint.name, one.name, one.revision)
            for endpoint in self._table.endpoints for one in endpoint.deployments
        } | {one.of for one in self._registry.replicas.values()}
        self._slots = {of: slot for of, slot in self._slots.items() if of in wanted}
        taken = set(self._slots.values()) | self._draining_slots()
        free = (slot for slot in range(1 << 16) if slot not in taken)
        for of in sorted(wanted - self._slots.keys()):
            self._slots[of] = next(free)
        count = max(self._slots.values(), default=-1) + 1
        self._shape = self._shape.grown(count, render.mirrors_of(self._table))

    def _draining_slots(self) -> set[int]:
        """Return the slots with servers: what still drains is not another revision's."""
        if not self._haproxy.runs() or self._told is None:
            return set()
        return {int(one.slot.removeprefix("slot")) for one in self._haproxy.runtime.servers()}

    def _maps(self) -> dict[str, dict[str, str]]:
        return render.maps_of(self._table, self._slots)

    def _servers(self) -> dict[int, list[Server]]:
        found: dict[int, list[Server]] = {}
        for one in self._registry.replicas.values():
            if not one.is_leaving:
                found.setdefault(self._slots[one.of], []).append(
                    Server(one.id, one.host, one.port)
                )
        return found

    def _configuration(self, servers: Mapping[int, list[Server]]) -> str:
        token_key = self.config.token_key
        token = Path(token_key).read_text().strip() if token_key else None
        return render.configuration(
            self.config, Secrets(self._secret, token), self._shape,
            render.trusted_keys(self._table), servers, files=self._files,
            socket=self._haproxy.runtime_socket, connections_max=_connections_max(),
            threads=min(os.cpu_count() or 1, THREADS_MAX),
        )

    def _fixed(self) -> str:
        """Return a digest of what only a reload can change."""
        parts = [self._configuration({}).encode(), self._certificate()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def _certificate(self) -> bytes:
        return Path(self.config.certificate).read_bytes() + Path(self.config.key).read_bytes()

    # What is on disk.

    def _write_files(self) -> None:
        self._files.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, entries in self._maps().items():
            self._write_map(name, entries)
        _write(self._files / CLOSING, b"")
        for digest, key in render.trusted_keys(self._table).items():
            _write(self._files / f"{digest}.pem", key.pem.encode())
        for status in render.ERROR_BODIES:
            _write(self._files / f"{status}.http", render.error_file(status).encode())
        _write(self._files / "public.pem", self._certificate())
        text = self._configuration(self._servers())
        _write(self._files / "haproxy.cfg", text.encode())

    def _write_map(self, name: str, entries: Mapping[str, str]) -> None:
        text = "".join(f"{key} {value}\n" for key, value in entries.items())
        _write(self._files / f"{name}.map", text.encode())

    def _kept(self) -> dict[str, Any]:
        path = self._folder / "state.json"
        try:
            kept: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:   # of a machine without power: all is told again within seconds
            log.warning("%s is damaged, and begun anew: %s", path, error)
            return {}
        return kept

    def _keep(self) -> None:
        known = self._haproxy.known
        _write(self._folder / "state.json", json.dumps({
            "table": self._table.to_dict(), "secret": self._secret, "sockets": str(self._sockets),
            "replicas": [one.to_dict() for one in self._registry.replicas.values()],
            "failures": list(self._registry.failures.values()),
            "slots": [[*of, slot] for of, slot in self._slots.items()],
            "shape": [self._shape.slots, self._shape.mirrors],
            "haproxy": {"pid": known.pid, "started_at": known.started_at} if known else None,
            "fixed": self._told.fixed if self._told else None,
        }).encode())

    def _restore(self, kept: Mapping[str, Any]) -> None:
        if not kept:
            return
        self._table = RoutingTable.from_dict(kept["table"])
        for one in kept["replicas"]:
            replica = Replica(**one)
            self._registry.replicas[replica.id] = replace(replica, announced_s=self._clock())
        for one in kept["failures"]:
            of = (one["endpoint"], one["deployment"], one["revision"])
            self._registry.failures[of] = one
        self._slots = {
            (endpoint, deployment, revision): slot
            for endpoint, deployment, revision, slot in kept["slots"]
        }
        self._shape = Shape(*kept["shape"])


#: Of HAProxy; more do not help a proxy, and each has its own pools.
THREADS_MAX = 8


#: Of tokens of issuers outside: what a public key verifies.
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")

#: What may stand between quotes in HAProxy's configuration as itself.
_IN_A_RULE = re.compile(r"[A-Za-z0-9._~:/?@!&()*+,;=%|-]{1,512}")


def check_names(table: RoutingTable) -> None:
    """Check that names in a table are names: they become lines of maps.

    Raises:
        InvalidInput: One is not.
    """
    for endpoint in table.endpoints:
        names = [endpoint.name, *endpoint.key_digests, *endpoint.traffic, *endpoint.mirror]
        names += [part for one in endpoint.deployments for part in (one.name, one.revision)]
        for name in names:
            if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
                raise InvalidInput(f"'{name}' cannot be a name in the routing table")
        for key in endpoint.trusted_keys:
            for text in (key.issuer, key.audience, key.id):
                if not _IN_A_RULE.fullmatch(text):
                    raise InvalidInput(f"'{text}' cannot be said of a token in the routing table")
            if key.algorithm not in ALGORITHMS:
                raise InvalidInput(
                    f"algorithm: expected one of {', '.join(ALGORITHMS)}, got '{key.algorithm}'"
                )


def _takes_requests(seen: Seen | None) -> bool:
    return seen is not None and seen.is_up and seen.is_checked and not seen.is_draining


def _connections_max() -> int:
    """Return how many connections fit into the files that HAProxy may open: two for each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if hard == resource.RLIM_INFINITY else min(
        CONNECTIONS_MAX, max(64, (hard - 200) // 3)
    )


def _socket_folder(kept: str | None) -> Path:
    """Return a folder for HAProxy's sockets, whose paths have at most 107 characters."""
    if kept is not None and Path(kept).is_dir():
        return Path(kept)
    root = tempfile.gettempdir()
    root = root if len(root) <= 20 else "/tmp"
    folder = Path(tempfile.mkdtemp(prefix="inferay-edge-", dir=root))   # 0700
    if len(str(folder)) > 70:
        raise Unavailable(f"{folder} is too long a path for HAProxy's sockets")
    return folder


def _write(path: Path, data: bytes) -> None:
    """Write a file that only the user can read, whole or not at all."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
    os.replace(aside, path)
