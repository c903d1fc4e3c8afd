"""The clusters that whole jobs run on: started before, ended after, in no figure."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: A cluster that is not up after so long will not come up.
START_WAIT_S = 60.0

CPUS = 2


@contextmanager
def ray_cluster(folder: Path) -> Iterator[None]:
    """Run a Ray node of two CPUs in this process's charge; jobs find it by RAY_ADDRESS."""
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(folder / "token")
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (so it is spelled)
    if not (folder / "token").exists():   # Ray keeps to the first that this process has read
        (folder / "token").write_text(os.urandom(32).hex())
    import ray  # which reads these variables now

    ray.init(
        num_cpus=CPUS, include_dashboard=False, log_to_driver=False, configure_logging=False,
    )
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    try:
        yield
    finally:
        del os.environ["RAY_ADDRESS"]
        ray.shutdown()


@contextmanager
def dask_cluster(folder: Path) -> Iterator[None]:
    """Run a Dask scheduler and two workers of one thread; jobs find it by DASK_ADDRESS."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    host, port = address.split(":")
    commands = [["scheduler", "--host", host, "--port", port, "--no-dashboard"]]
    commands.append([
        "worker", f"tcp://{address}", "--nworkers", str(CPUS), "--nthreads", "1",
        "--no-dashboard", "--local-directory", str(folder / "dask"),
    ])
    with open(folder / "dask.log", "w") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "dask", *command], stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
            )
            for command in commands
        ]
    os.environ["DASK_ADDRESS"] = f"tcp://{address}"
    try:
        _wait_for_dask()
        yield
    finally:
        del os.environ["DASK_ADDRESS"]
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait()


def _wait_for_dask() -> None:
    from distributed import Client

    until_s = time.monotonic() + START_WAIT_S
    with Client(os.environ["DASK_ADDRESS"], timeout=START_WAIT_S) as client:
        client.wait_for_workers(CPUS, timeout=until_s - time.monotonic())
