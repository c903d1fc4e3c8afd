"""HAProxy's runtime API over its socket: maps, servers, statistics. Its answers are checked."""

from __future__ import annotations

import csv
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from inferay.errors import Unavailable
from inferay.serve.edge.render import SERVER_OPTIONS, Server

#: HAProxy answers in a millisecond; a machine that is loaded may take seconds.
TIMEOUT_S = 10.0

#: Of a map's entries in one command: HAProxy reads a command into one buffer.
CHUNK_BYTES = 16 << 10


class Refused(Unavailable):
    """HAProxy did not do as it was told."""

    code = "EdgeRefused"


@dataclass(frozen=True)
class Seen:
    """A server as HAProxy has it.

    Attributes:
        open: Requests on it, and waiting for it.
        is_up: Whether requests go there.
        is_checked: Whether it is up by a check that passed, not by default.
        is_draining: Whether it gets no new requests.
    """

    slot: str
    id: str
    open: int
    is_up: bool
    is_checked: bool
    is_draining: bool


class Runtime:
    """The runtime API behind one socket.

    Raises:
        Unavailable: Every method: HAProxy does not answer.
        Refused: Every method: it answers that it did not do it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def answers(self) -> bool:
        """Return whether HAProxy answers."""
        try:
            self._ask("show version")
        except Unavailable:
            return False
        return True

    def worker(self) -> int:
        """Return the process id of the worker that answers."""
        for line in self._ask("show info").splitlines():
            name, _, value = line.partition(": ")
            if name == "Pid":
                return int(value)
        raise Unavailable("HAProxy does not say its process id")

    def replace_map(self, path: Path, entries: Mapping[str, str]) -> None:
        """Make these the map's entries, all at once."""
        answer = self._ask(f"prepare map {path}")
        if not answer.startswith("New version created:"):
            raise Refused(f"HAProxy: prepare map {path.name}: {answer}")
        version = answer.split(":")[1].strip()
        for chunk in _chunks(entries):
            self._do(f"add map @{version} {path} <<\n{chunk}")   # and an empty line ends it
        self._do(f"commit map @{version} {path}")

    def servers(self) -> list[Seen]:
        """Return every server in a slot."""
        lines = self._ask("show stat -1 4 -1").lstrip("# ").splitlines()
        return [
            Seen(
                slot=row["pxname"], id=row["svname"], open=int(row["scur"]) + int(row["qcur"]),
                is_up=row["status"].startswith(("UP", "no check")),
                # A star says that the next check is under way.
                is_checked=row["check_status"].removeprefix("* ") == "L7OK",
                is_draining=row["status"].startswith(("DRAIN", "MAINT")),
            )
            for row in csv.DictReader(lines) if row["pxname"].startswith("slot")
        ]

    def add_server(self, slot: str, server: Server) -> None:
        """Add a server that listens already; requests go there at once."""
        name = f"{slot}/{server.id}"
        host = f"[{server.host}]" if ":" in server.host else server.host
        self._do(f"add server {name} {host}:{server.port} {SERVER_OPTIONS}",
                 "New server registered.")
        self._do(f"enable health {name}")
        self._do(f"enable server {name}")

    def drain_server(self, slot: str, id: str) -> None:
        """Send no new requests there."""
        self._do(f"set server {slot}/{id} state drain")

    def delete_server(self, slot: str, id: str) -> None:
        """Delete a server that has no requests left."""
        self._do(f"set server {slot}/{id} state maint")
        self._do(f"del server {slot}/{id}", "Server deleted.")

    def _do(self, command: str, expected: str = "") -> None:
        answer = self._ask(command)
        if answer != expected:
            raise Refused(f"HAProxy: {command.splitlines()[0]}: {answer or 'no answer'}")

    def _ask(self, command: str) -> str:
        return ask(self._path, command)


def ask(path: Path, command: str) -> str:
    """Return what HAProxy answers to a command on a socket of its.

    Raises:
        Unavailable: It does not answer.
    """
    found = b""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(command.encode() + b"\n")
            while data := connection.recv(1 << 16):
                found += data
    except OSError as error:
        raise Unavailable(f"HAProxy does not answer on {path}: {error}") from error
    return found.decode().strip()


def _chunks(entries: Mapping[str, str]) -> Iterator[str]:
    chunk: list[str] = []
    size_bytes = 0
    for key, value in entries.items():
        line = f"{key} {value}\n"
        if size_bytes + len(line) > CHUNK_BYTES:
            yield "".join(chunk)
            chunk, size_bytes = [], 0
        chunk.append(line)
        size_bytes += len(line)
    if chunk:
        yield "".join(chunk)
