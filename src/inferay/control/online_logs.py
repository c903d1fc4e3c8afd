"""The logs of an online deployment: the ends of what its replicas printed."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.orm import Session

from inferay.control.context import Context
from inferay.control.online import get_deployment, live_revision
from inferay.serve.log_tail import tail_of


def read_logs(
    context: Context, session: Session, endpoint: str, name: str, *, container: str, tail: int
) -> str:
    """Return the last lines of a deployment's logs; where it has several replicas, each its share.

    Those of the live revision, or of the newest one where that is being put or has failed.

    Args:
        context: The control plane's.
        session: For reading.
        endpoint: Whose deployment it is.
        name: The deployment.
        container: `inference_server`, or `storage_initializer`, which is always silent: models are
            read in place.
        tail: How many lines.

    Raises:
        NotFound: There is no such deployment.
    """
    row = get_deployment(session, endpoint, name)
    if container == "storage_initializer":
        return ""
    folder = context.workspace.online_logs(endpoint, name)
    live = live_revision(session, endpoint, name)
    if live is not None and row.state == "Succeeded":
        chosen: Path | None = folder / live.name
    else:
        chosen = max((one for one in folder.glob("*") if one.is_dir()), default=None)
    return "" if chosen is None else tail_of(chosen, tail)
