"""Run a job in this process: connect to Ray, drive, return how it ended."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import ray

from inferay.engine.batch.driver import Driver, PoolFactory
from inferay.engine.batch.placement import WorkerResources
from inferay.engine.batch.ray_pool import RayPool
from inferay.engine.batch.result import Result
from inferay.engine.batch.spec import JobSpec, WorkerSpec
from inferay.engine.storage import Access


def run(
    spec: JobSpec | str | Path, *, make_pool: PoolFactory | None = None, epoch: int | None = None,
    is_stopped: Callable[[], bool] = lambda: False, access: Access | None = None,
) -> Result:
    """Run the job and return how it ended; blocks until then.

    Idempotent by name: a spec whose work folder holds an unfinished job goes on with it.

    Args:
        spec: The job, or the path of a YAML file that describes it (`user_spec`).
        make_pool: Where workers run; by default this process's Ray, which is started or joined
            as `ray.init()` does if it is not yet.
        epoch: Claim exactly this epoch of the job; by default the next one.
        is_stopped: Asked ten times a second; True leaves the job to be resumed.
        access: How remote storage is reached; by default as the environment says.

    Raises:
        InvalidInput: The YAML file is wrong.
        Conflict: The output exists, or a newer driver has the job; nothing was changed.
        Interrupted: `is_stopped` said so.
    """
    if not isinstance(spec, JobSpec):
        from inferay.engine.batch.user_spec import read_user_spec  # a driver needs no pydantic

        spec = read_user_spec(Path(spec)).spec
    access = access or Access.from_environment(os.environ)
    return Driver(spec, make_pool or on_ray(spec.workers), epoch, is_stopped, access).run()


def on_ray(workers: WorkerSpec) -> PoolFactory:
    """Return a maker of pools on this process's Ray, which it connects to first if need be."""
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    resources = WorkerResources(
        workers.num_cpus, workers.num_gpus, tuple(sorted(workers.custom.items()))
    )
    return lambda settings_of, events: RayPool(settings_of, events, resources)
