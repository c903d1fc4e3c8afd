"""The connection that a command uses, closed when the command ends."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from inferay.config import Workspace

if TYPE_CHECKING:
    from inferay.client import Client
    from inferay.local import LocalClient


def connect(options: argparse.Namespace) -> Client:
    """Return the command's client, made when it is first asked for.

    Raises:
        Unavailable: No control plane runs.
    """
    from inferay.client import Client  # not for `--help` and wrong flags

    if getattr(options, "client", None) is None:
        options.client = Client()
    found: Client = options.client
    return found


def connect_online(options: argparse.Namespace) -> Client | LocalClient:
    """Return what the command's online endpoints are at: with `--local`, on this machine.

    Raises:
        Unavailable: No control plane runs.
    """
    if not options.local:
        return connect(options)
    from inferay.local import LocalClient

    return LocalClient(
        Workspace.from_environment(), is_debugged=getattr(options, "vscode_debug", False)
    )


def disconnect(options: argparse.Namespace | None) -> None:
    """Close the command's client, if it made one."""
    client = getattr(options, "client", None)
    if client is not None:
        client.close()
