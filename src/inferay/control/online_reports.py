"""Shadow reports of an online endpoint: what the pairs that its replicas keep show."""

from __future__ import annotations

import math
from datetime import UTC

from inferay.control.context import Context
from inferay.control.online import get_deployment, get_endpoint, live_revision
from inferay.errors import InvalidInput, Unavailable
from inferay.serve.mirror.compare import Tolerance
from inferay.serve.mirror.report import ShadowReport
from inferay.serve.mirror.review import report_of

#: How long a report waits for another one to be done: each reads all pairs, one at a time.
WAIT_S = 20.0


def shadow_report(
    context: Context, endpoint: str, live: str, shadow: str, *, tolerance: Tolerance, worst: int
) -> ShadowReport:
    """Return what the revisions of two deployments that serve now answer to the same requests.

    Pairs lie where replicas write them: below this workspace's folder, on one machine or on a
    shared disk. Blocks for seconds where there are many pairs.

    Raises:
        NotFound: There is no such endpoint or deployment.
        InvalidInput: Both are the same deployment.
        Unavailable: Other reports are being made.
    """
    with context.database.read() as session:
        for name in (live, shadow):
            get_deployment(session, endpoint, name)
        rule = get_endpoint(session, endpoint).properties.get("mirrorTraffic") or {}
        revisions = [live_revision(session, endpoint, name) for name in (live, shadow)]
        names = [None if one is None else one.name for one in revisions]
        since = None if revisions[1] is None else revisions[1].created_at.replace(tzinfo=UTC)
    if live == shadow:
        raise InvalidInput(
            f"live and shadow are both '{live}': a deployment gets no copies of what it answers",
            target="shadow",
        )
    if not context.reporting.acquire(timeout=WAIT_S):
        raise Unavailable("other shadow reports are being made: retry in a minute")
    try:
        return report_of(
            context.workspace.pairs_folder(endpoint), live, shadow, live_revision=names[0],
            shadow_revision=names[1],
            shadow_since_s=-math.inf if since is None else since.timestamp(),
            mirror_percent=int(rule.get(shadow, 0)),
            tolerance=tolerance, worst=worst,
        )
    finally:
        context.reporting.release()
