"""w7: files on S3, each request delayed by 20 ms, beside the same files on local disk.

The server is the one of the tests (`tests/radosgw.py`), behind their proxy, which delays.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import clusters, plain, whole
from benchmarks.report import Line, Peer, Plain
from benchmarks.works import Job, make_files
from tests import radosgw
from tests.fault_proxy import fault_proxy

FILES = 5_000
LATENCY_S = 0.020

#: Of the files, in the small job that shows the start.
SMALL = 0.02


def w7(folder: Path, repetitions: int, scale: float) -> Iterator[Line]:
    """Measure the engine on S3, scoring alone and Ray Data in turn."""
    count = int(FILES * scale)
    local = make_files(folder / "files", count, script="device", text=lambda number: f"{number}\n")
    small = make_files(
        folder / "small", max(20, int(count * SMALL)), script="device", text=lambda n: f"{n}\n"
    )
    ours, peer = [], []
    alone_s = []
    with _storage() as server, ExitStack() as stack:
        remote, remote_small = _upload(server, local), _upload(server, small)
        stack.enter_context(clusters.ray_cluster(folder))
        small_s = [
            whole.measure(name, remote_small, folder / "job").wall_s
            for name in ("engine", "ray_data")
        ]
        for _ in range(repetitions):
            part = folder / "plain"
            part.mkdir(exist_ok=True)
            alone_s.append(plain.measure(local, part)[0])
            ours.append(whole.measure("engine", remote, folder / "job"))
            peer.append(whole.measure("ray_data", remote, folder / "job").wall_s)
    what = (
        f"{count:,} files on S3, {LATENCY_S * 1e3:.0f} ms for each request, 10 ms in run(); beside "
        "two plain processes with the files on disk"
    )
    engine_s = [run.facts["seconds"] for run in ours]
    starts_s = [run.wall_s - run.facts["seconds"] for run in ours]
    yield Plain("w7", what, 1.30, engine_s, alone_s, starts_s)
    yield Peer(
        "w7", "ray_data", count, 1, [run.wall_s for run in ours], peer, small.items, *small_s
    )


@contextmanager
def _storage() -> Iterator[radosgw.Server]:
    """Run the server and the proxy before it; AWS's variables lead to the proxy."""
    with radosgw.started() as server, fault_proxy(server.port, latency_s=LATENCY_S) as proxy:
        os.environ |= {
            "AWS_ENDPOINT_URL": proxy.endpoint_url, "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": radosgw.ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": radosgw.SECRET_ACCESS_KEY,
        }
        yield server


def _upload(server: radosgw.Server, local: Job) -> Job:
    """Copy the files to a bucket, past the proxy; return the job on them."""
    from inferay.engine.storage import open_filesystem

    bucket = server.make_bucket()
    filesystem, path = open_filesystem(bucket.uri, bucket.access)
    root = Path(local.input)

    def put(file: Path) -> None:
        filesystem.pipe_file(f"{path}/in/{file.relative_to(root)}", file.read_bytes())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, (file for file in sorted(root.rglob("*")) if file.is_file())))
    endpoint = urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc
    return replace(local, input=f"{bucket.uri}/in", endpoint=endpoint)
