"""Ray clusters of our own for tests: started and ended by process id, whatever else runs here."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from inferay.processes import Process, clean_environment, free_ports
from inferay.ray_head import end_ray

#: Ray's own id of the head, as its fake provider of nodes wants it.
HEAD_ID = "f" * 51 + "00000"

#: A head takes 7 to 30 s on two busy cores.
START_S = 90.0


@dataclass(frozen=True)
class Cluster:
    """A head that listens.

    Attributes:
        temp_dir: What its processes know each other by.
        environment: Variables with which `ray.init()` joins it.
    """

    temp_dir: Path
    environment: dict[str, str]

    def nodes(self) -> int:
        """Count the nodes beside the head."""
        raylets = [one for one in psutil.process_iter() if self._is_raylet(one)]
        pids = {one.pid for one in raylets}
        # One that forks, to start a worker, is seen twice for a moment.
        return sum(_parent(one) not in pids for one in raylets) - 1

    def _is_raylet(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            is_ours = process.environ().get("RAY_TMPDIR") == str(self.temp_dir)
            return is_ours and process.name() == "raylet" and process.status() != "zombie"
        return False


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0


@contextlib.contextmanager
def autoscaling_cluster(
    worker: dict[str, float], *, nodes_max: int, idle_s: float = 3.0
) -> Iterator[Cluster]:
    """Start a head without CPUs whose autoscaler adds and removes nodes, processes of this machine.

    Args:
        worker: Resources of each node, by Ray's names.
        nodes_max: Nodes beside the head at most.
        idle_s: How long a node is idle before it is removed.
    """
    temp_dir = Path(tempfile.mkdtemp(prefix=f"ir{secrets.token_hex(2)}", dir="/tmp"))
    (temp_dir / "ray").mkdir()
    token = temp_dir / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    gcs_port, client_port, agent_port, *others = free_ports(6)
    gcs = f"127.0.0.1:{gcs_port}"
    config = temp_dir / "autoscaler.yaml"
    config.write_text(yaml.safe_dump(_config(gcs, worker, nodes_max, idle_s)))
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    environment = clean_environment() | auth | {
        "RAY_TMPDIR": str(temp_dir), "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "0",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_worker_niceness": "0",
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
        "--node-ip-address=127.0.0.1", f"--port={gcs_port}", "--include-dashboard=false",
        f"--ray-client-server-port={client_port}", f"--dashboard-agent-listen-port={agent_port}",
        *(f"--{name}={port}" for name, port in zip(
            ("dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port"),
            others, strict=True,
        )),
        "--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats",
        f"--temp-dir={temp_dir}", f"--object-store-memory={128 << 20}", "--num-cpus=0",
        "--num-gpus=0", f"--autoscaling-config={config}", "--include-log-monitor=false",
    ]
    cluster = Cluster(temp_dir, auth | {"RAY_ADDRESS": gcs})
    with open(temp_dir / "head.log", "ab") as log:
        head = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            start_new_session=True, cwd="/",
        )
    try:
        wait_until(START_S, "the head", lambda: cluster.nodes() == 0)
        yield cluster
    finally:
        end_ray(Process(head.pid, psutil.Process(head.pid).create_time()), str(temp_dir))
        head.wait()


def _config(
    gcs: str, worker: dict[str, float], nodes_max: int, idle_s: float
) -> dict[str, object]:
    return {
        "cluster_name": "test", "max_workers": nodes_max, "idle_timeout_minutes": idle_s / 60,
        # Without the last three, nodes of the fake provider are taken for failed launches.
        "provider": {
            "type": "fake_multinode", "gcs_address": gcs, "launch_multiple": True,
            "head_node_id": HEAD_ID, "use_node_id_as_ip": True, "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {"ssh_user": "nobody"},
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "min_workers": 0,
                       "max_workers": nodes_max},
        },
        "head_node_type": "head", "file_mounts": {}, "cluster_synced_files": [],
        "file_mounts_sync_continuously": False, "initialization_commands": [],
        "setup_commands": [], "head_setup_commands": [], "worker_setup_commands": [],
        "head_start_ray_commands": [], "worker_start_ray_commands": [],
    }


def wait_until(limit_s: float, what: str, is_true: Callable[[], bool]) -> float:
    """Wait until the condition holds; return the time (monotonic seconds)."""
    until_s = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < until_s, f"{what}: not within {limit_s:g} s"
        time.sleep(0.1)
    return time.monotonic()
