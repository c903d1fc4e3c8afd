"""Local mode: online endpoints as plain processes behind an edge of their own.

The same files, inference server, traffic rules and keys as on a cluster, with no control plane and
no Ray. What is declared is kept in `INFERAY_HOME/local`, for the next command.
"""

from __future__ import annotations

from inferay.local.client import LocalClient

__all__ = ["LocalClient"]
