"""The loop that drives what is to what shall be: operations, jobs, and the Ray head itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from inferay.config import Workspace
from inferay.control import assets, endpoints, environments, jobs, online_steps
from inferay.control.context import Context
from inferay.control.fleet import Fleet
from inferay.control.issuers import Issuers
from inferay.control.mlflow_registry import MlflowRegistry
from inferay.control.mlflow_runs import MlflowRuns, watch
from inferay.control.operations import Runner, Steps
from inferay.edge_process import revive_edge
from inferay.errors import InferayError
from inferay.ray_head import revive_ray

log = logging.getLogger(__name__)

#: How often jobs are looked at when nothing wakes the loop: what a user may wait for a state.
TURN_S = 0.2

#: How often the Ray head and the edge are looked at.
LOOK_S = 2.0


def all_steps() -> Steps:
    """Return the steps of every kind of operation."""
    steps = Steps()
    for module in (assets, endpoints, environments, jobs, online_steps):
        module.add_steps(steps)
    return steps


class Reconciler:
    """Runs the loop on a thread of its own, and the cares for what may block: Ray and the edge."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._runner = Runner(context, all_steps())
        self._watcher = jobs.Watcher(context)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="reconcile")
        # A start of Ray takes long: nobody waits for it, and whoever stops us cleans up after it.
        self._cares = [
            threading.Thread(target=self._look_after, args=one, name=one[0], daemon=True)
            for one in (("Ray head", revive_ray), ("edge", revive_edge))
        ]
        # MLflow may take seconds, or be away for hours: it has a thread of its own.
        turns = [
            MlflowRegistry(context, context.mlflow).turn,
            MlflowRuns(context, context.mlflow).turn,
        ]
        self._tracking = threading.Thread(
            target=watch, args=(turns, self._stopping), name="mlflow", daemon=True
        )
        fleet = Fleet(context)
        self._fleet = [
            threading.Thread(target=self._keep_true, args=[turn], name=name, daemon=True)
            for name, turn in (("edge-table", fleet.turn_edge), ("serve", fleet.turn_serve),
                               ("issuers", Issuers(context).turn))
        ]

    def start(self) -> None:
        """Start the loop."""
        self._thread.start()
        for one in (*self._fleet, self._tracking):
            one.start()
        for care in self._cares[0 if self._context.is_embedded else 1:]:
            care.start()

    def stop(self) -> None:
        """End the loop; blocks until the steps under way have ended."""
        self._stopping.set()
        self._context.wake.set()
        self._thread.join()
        self._runner.close()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._context.wake.wait(TURN_S)
            self._context.wake.clear()
            try:
                self._runner.run_due()
                self._watcher.look()
            except Exception:   # the loop must outlive any one turn's trouble
                log.exception("a turn of the loop failed")
                time.sleep(TURN_S)

    def _keep_true(self, turn: Callable[[], None]) -> None:
        while not self._stopping.wait(TURN_S):
            try:
                turn()
            except Exception:   # as above
                log.exception("a turn of the fleet failed")

    def _look_after(self, name: str, revive: Callable[[Workspace], bool]) -> None:
        """Start what belongs to the workspace again if it died."""
        while not self._stopping.wait(LOOK_S):
            try:
                if revive(self._context.workspace):
                    log.warning("the %s was gone; it was started again", name)
            except InferayError as error:
                log.error("%s", error.message)
            except Exception:   # the care must outlive any one trouble
                log.exception("the %s cannot be looked after", name)
