"""What the parts of the control plane share: the database, the workspace, Ray, this machine."""

from __future__ import annotations

import glob
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import psutil

from inferay.config import Workspace
from inferay.control.database import Database
from inferay.control.mlflow_store import MlflowStore
from inferay.control.tables import now
from inferay.engine.batch.memory import machine_bytes
from inferay.jobs.ray_jobs import RayJobs
from inferay.serve.applications import ServeApplications
from inferay.serve.edge.client import EdgeClient


@dataclass(frozen=True)
class Machine:
    """What this machine has.

    Attributes:
        cpus: Logical CPUs.
        cores: Physical cores: more workers than these slow each other down.
        gpus: NVIDIA GPUs.
        memory_bytes: Memory, of the container if that has a limit.
    """

    cpus: int
    cores: int
    gpus: int
    memory_bytes: int

    @classmethod
    def this(cls) -> Machine:
        """Return what this machine has."""
        cpus = psutil.cpu_count() or 1
        gpus = len(glob.glob("/dev/nvidia[0-9]*"))
        return cls(cpus, psutil.cpu_count(logical=False) or cpus, gpus, machine_bytes())


@dataclass
class Context:
    """What the control plane works with.

    Attributes:
        database: Its database.
        workspace: Its workspace.
        url: The public address, as clients see it.
        machine: This machine.
        workers_max: Workers of one job at most on this machine, or None for its cores.
        is_embedded: Whether Ray runs on this machine alone, started with the workspace.
        ray: Returns the Ray job API of now; it changes when a head is restarted.
        serve: Returns Ray Serve's API of now; likewise.
        edge: Returns the management API of the workspace's edge.
        checkpoint: Called with a name before each step that changes something; tests crash there.
        wake: Set when there is something to do.
        reporting: Held while pairs are read for a report, which costs a processor for seconds.
        publishing: Held while rows are read and told to the edge: what is told later is newer.
        mlflow: MLflow's store, of this workspace or of a server.
        started_at: What happened while no control plane ran is nobody's delay.
    """

    database: Database
    workspace: Workspace
    url: str
    machine: Machine
    workers_max: int | None
    is_embedded: bool
    ray: Callable[[], RayJobs]
    serve: Callable[[], ServeApplications]
    edge: Callable[[], EdgeClient]
    checkpoint: Callable[[str], None] = lambda name: None
    wake: threading.Event = field(default_factory=threading.Event)
    reporting: threading.Lock = field(default_factory=threading.Lock)
    publishing: threading.Lock = field(default_factory=threading.Lock)
    started_at: datetime = field(default_factory=now)

    def __post_init__(self) -> None:
        self.mlflow = MlflowStore(self.workspace)
