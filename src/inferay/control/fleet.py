"""Keeps the edge and Ray Serve true to the rows: the routing table, and the revisions that run.

The rows are the truth. Whatever was lost elsewhere (a table, a head with all its applications) is
told again; both are told all at once, so that telling is idempotent and needs no history.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import select

from inferay.control.applications import armed, read_application
from inferay.control.context import Context
from inferay.control.online_table import read_table
from inferay.control.tables import Revision
from inferay.edge_process import edge_url
from inferay.errors import InferayError
from inferay.serve.applications import ServeApplications
from inferay.serve.replica_spec import ApplicationSpec
from inferay.serve.routing import digest_of_table

log = logging.getLogger(__name__)

#: Between two looks whether the edge still has its table.
EDGE_LOOK_S = 1.0

#: After Serve did not answer, or refused.
RETRY_S = 1.0

#: Serve gives up on an application whose replica could not start once. One that serves must not be
#: lost to a model store that was away: Serve is asked again, ever less often, but this often.
RENEWAL_S_MAX = 300.0

#: Between two looks whether Serve still has its applications: gathering the answer costs it work.
SERVE_LOOK_S = 5.0


def publish(context: Context) -> None:
    """Tell the edge the table of now; blocks until it carries it out; idempotent.

    Raises:
        Unavailable: The edge does not answer.
    """
    edge = context.edge()
    with context.publishing, context.database.read() as session:
        edge.publish(read_table(session))


class Fleet:
    """What `Reconciler` turns; each method may block, on a thread of its own.

    Args:
        context: The control plane's.
        clock: Monotonic seconds.
    """

    def __init__(self, context: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock
        self._edge_looked_s = self._serve_looked_s = self._serve_again_s = -math.inf
        self._declared: str | None = None
        self._said: dict[str, str] = {}
        #: How often Serve was asked to go on with an application, and when it last was.
        self._renewals: dict[str, tuple[int, float]] = {}

    def turn_edge(self) -> None:
        """Tell the edge its table if it has another one."""
        if self._clock() - self._edge_looked_s < EDGE_LOOK_S:
            return
        self._edge_looked_s = self._clock()
        with self._explaining("edge"):
            has = self._context.edge().state().table_digest
            with self._context.database.read() as session:
                wanted = digest_of_table(read_table(session))
            if has != wanted:
                publish(self._context)

    def turn_serve(self) -> None:
        """Declare what shall run if that changed, or if Serve lost some of it."""
        if self._clock() < self._serve_again_s:
            return
        with self._explaining("Ray Serve"):
            self._serve_again_s = self._clock() + RETRY_S   # unless all goes well
            wanted, serve = self._applications(), self._context.serve()
            digest = _digest(serve, wanted)
            if digest != self._declared and (wanted or _has_ours(serve)):
                self._declare(serve, wanted)
            self._declared = digest
            if wanted and self._clock() - self._serve_looked_s >= SERVE_LOOK_S:
                self._serve_looked_s = self._clock()
                self._look_at_serve(serve, wanted)
            self._serve_again_s = self._clock()

    def _look_at_serve(self, serve: ServeApplications, wanted: list[ApplicationSpec]) -> None:
        states = serve.status()
        if not {one.name for one in wanted} <= states.keys():
            self._declare(serve, wanted)
        for name in self._live():
            state = states.get(name)
            if state is None or state.status != "DEPLOY_FAILED":
                continue
            count, since_s = self._renewals.get(name, (0, -math.inf))
            if self._clock() - since_s >= min(SERVE_LOOK_S * 2**count, RENEWAL_S_MAX):
                self._renewals[name] = (count + 1, self._clock())
                log.warning("%s: Ray Serve has given up on it, and is asked to try again: %s",
                            name, (state.message.splitlines() or ["no reason given"])[-1])

    def _declare(self, serve: ServeApplications, wanted: list[ApplicationSpec]) -> None:
        serve.put(wanted)
        self._serve_looked_s = self._clock()
        log.info("declared to Ray Serve: %s", ", ".join(one.name for one in wanted) or "nothing")

    def _applications(self) -> list[ApplicationSpec]:
        with self._context.database.read() as session:
            rows = session.scalars(select(Revision).order_by(
                Revision.endpoint, Revision.deployment, Revision.name
            ))
            found = [read_application(row.application) for row in rows]
        if not found:
            return []
        url = edge_url(self._context.workspace)
        key = self._context.workspace.registration_key.read_bytes().strip()
        return [
            replace(
                armed(one, edge_url=str(url), registration_key=key),
                renewals=self._renewals.get(one.name, (0, 0.0))[0],
            )
            for one in found
        ]

    def _live(self) -> list[str]:
        with self._context.database.read() as session:
            rows = session.scalars(select(Revision).where(Revision.is_live))
            return [read_application(row.application).name for row in rows]

    @contextmanager
    def _explaining(self, what: str) -> Iterator[None]:
        """Log what is wrong there, once."""
        said = ""
        try:
            yield
        except InferayError as error:
            said = error.message
        if said != self._said.get(what, ""):
            log.warning("%s", said or f"{what} answers again")
        self._said[what] = said


def _digest(serve: ServeApplications, wanted: list[ApplicationSpec]) -> str:
    text = json.dumps([serve.address.dashboard, *(one.to_dict() for one in wanted)])
    return hashlib.sha256(text.encode()).hexdigest()


def _has_ours(serve: ServeApplications) -> bool:
    """Return whether an application of ours runs: to declare nothing would start Serve."""
    return any(name.count(".") == 2 for name in serve.status())
