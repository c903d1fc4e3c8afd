"""A private Ray cluster of several nodes on this machine, whose nodes may be killed and frozen."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

#: Workers of a whole job fit on one node: the job goes on while another one is gone.
NODE_CPUS = 4
NODES = 2

#: Ray notices a dead or frozen node within 3 to 4 s, and bears a loaded machine.
HEALTH = {
    "health_check_initial_delay_ms": 0, "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000, "health_check_failure_threshold": 3,
}

#: A node that Ray has given up ends by itself when it hears of it.
ZOMBIE_S = 10.0

_OBJECT_STORE_BYTES = 80 << 20


def private_environment(folder: Path) -> dict[str, str]:
    """Return variables that keep a cluster to itself: its folders and its token."""
    (folder / "ray").mkdir(parents=True)
    token = folder / "token"
    with open(os.open(token, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return {
        "RAY_TMPDIR": str(folder), "HOME": str(folder), "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_prestart_worker_first_driver": "0", "RAY_enable_worker_prestart": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }


class Cluster:
    """A head without room for workers, and nodes with room. Ray is imported only here.

    `private_environment` has to hold in this process.
    """

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster

        self._ray = RayCluster(initialize_head=True, head_node_args={
            "num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH,
            "object_store_memory": _OBJECT_STORE_BYTES,
        })
        self._lost: list[Any] = []
        for _ in range(NODES):
            self._add_node()

    @property
    def address(self) -> str:
        """`HOST:PORT` for RAY_ADDRESS."""
        return str(self._ray.address)

    def nodes(self) -> list[Any]:
        """Return the nodes with room for workers, in a fixed order."""
        nodes = [node for node in self._ray.worker_nodes if node not in self._lost]
        return sorted(nodes, key=lambda node: str(node.unique_id))

    def processes(self) -> list[psutil.Process]:
        """Return what runs on the nodes: raylets, actors, worker processes."""
        return [process for node in self.nodes() for process in _tree(node)]

    def processes_of(self, node: Any) -> list[psutil.Process]:
        """Return what runs on a node."""
        return _tree(node)

    def kill(self, node: Any) -> None:
        """Lose a node and all that runs on it, at once."""
        self._lost.append(node)
        _signal(_tree(node), signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self, node: Any) -> Iterator[None]:
        """Freeze a node and all that runs on it; afterwards it comes back, given up by Ray."""
        self._lost.append(node)
        processes = _tree(node)
        _signal(processes, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(processes, signal.SIGCONT)

    def settle(self) -> None:
        """Let another node join for each that was lost."""
        while self._lost:
            node = self._lost.pop()
            with contextlib.suppress(psutil.TimeoutExpired, psutil.NoSuchProcess):
                psutil.Process(_raylet(node)).wait(ZOMBIE_S)
            self._ray.remove_node(node, allow_graceful=False)
            self._add_node()

    def close(self) -> None:
        """End the cluster and what it left."""
        self._ray.shutdown()   # type: ignore[no-untyped-call]
        mine = os.environ["RAY_TMPDIR"]
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and process.environ().get("RAY_TMPDIR") == mine:
                    process.kill()

    def _add_node(self) -> None:
        self._ray.add_node(num_cpus=NODE_CPUS, object_store_memory=_OBJECT_STORE_BYTES)


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _tree(node: Any) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        raylet = psutil.Process(_raylet(node))
        return [raylet, *raylet.children(recursive=True)]
    return []


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@contextlib.contextmanager
def private_cluster(environment: Mapping[str, str]) -> Iterator[Cluster]:
    """Start a cluster for a while, with these variables too; its folders are removed with it."""
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        os.environ.update({**private_environment(Path(folder)), **environment})
        cluster = Cluster()
        try:
            yield cluster
        finally:
            cluster.close()
