"""The connection that a command uses, closed when the command ends."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inferay.client import Client


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


def disconnect(options: argparse.Namespace | None) -> None:
    """Close the command's client, if it made one."""
    client = getattr(options, "client", None)
    if client is not None:
        client.close()
