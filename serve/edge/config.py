"""What an edge process is told at its start: addresses and files, no secret by value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class EdgeConfig:
    """Where an edge listens and keeps what it knows.

    Attributes:
        folder: Its own, private to the user: what it has to know again after a restart.
        host: Of the public port.
        port: The public port, with TLS.
        certificate: PEM file of the server's certificate with its issuer's.
        key: PEM file of its private key.
        management_host: Where `api` listens; replicas have to reach it.
        management_port: The same over restarts: replicas know it.
        mirror_port: Where replicas send copies of requests, on the management host.
        admin_secret: File with what the control plane authenticates with.
        registration_key: File with the key that replicas' credentials are made with.
        token_key: File with the key of the endpoints' tokens, or None where there are none.
        control_port: The control plane's port on loopback, or None without one.
        haproxy: The binary, or None for the one that is found.
    """

    folder: str
    host: str
    port: int
    certificate: str
    key: str
    management_host: str
    management_port: int
    mirror_port: int
    admin_secret: str
    registration_key: str
    token_key: str | None = None
    control_port: int | None = None
    haproxy: str | None = None

    def write(self, path: Path) -> None:
        """Write the file that `read` takes."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what the file says."""
        values: dict[str, Any] = json.loads(path.read_text())
        return cls(**values)
