"""Remote storage of chaos trials: a real S3 server, which the jobs reach through a fault proxy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inferay.engine.storage import open_filesystem
from tests import radosgw
from tests.fault_proxy import FaultProxy, drawn, fault_proxy
from tests.radosgw import ACCESS_KEY_ID, SECRET_ACCESS_KEY, Bucket


class Far:
    """A bucket; each trial has a prefix of its own. The methods go round the proxy."""

    def __init__(self, bucket: Bucket, proxy: FaultProxy) -> None:
        self._uri = bucket.uri
        self._proxy = proxy
        self._filesystem: Any
        self._filesystem, self._path = open_filesystem(bucket.uri, bucket.access)

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which drivers and workers reach it: AWS's own."""
        return {
            "AWS_ENDPOINT_URL": self._proxy.endpoint_url, "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    @property
    def faults(self) -> int:
        """Requests that met a fault so far."""
        return self._proxy.faults.total()

    def misbehave(self, rate: float, seed: int) -> None:
        """Let so many of the requests from now on meet a fault, drawn from the seed."""
        self._proxy.choose = drawn(rate, seed)

    def uri(self, prefix: str) -> str:
        """Return the address of a prefix."""
        return f"{self._uri}/{prefix}"

    def upload(self, folder: Path, prefix: str) -> None:
        """Put the files of a folder below the prefix."""
        self._filesystem.pipe({
            f"{self._path}/{prefix}/{path.name}": path.read_bytes() for path in folder.iterdir()
        })

    def download(self, prefix: str, folder: Path) -> None:
        """Write what is below the prefix into a folder."""
        root = f"{self._path}/{prefix}/"
        names = self._filesystem.find(root)
        for name, content in self._filesystem.cat(names).items() if names else ():
            path = folder / name.removeprefix(root)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def has(self, prefix: str) -> bool:
        """Return whether anything is below the prefix."""
        answer = self._filesystem.call_s3(
            "list_objects_v2", Bucket=self._path, Prefix=f"{prefix}/", MaxKeys=1
        )
        return bool(answer["KeyCount"])


@contextlib.contextmanager
def far_storage() -> Iterator[Far]:
    """Run a server for a while; what it held is gone afterwards."""
    with radosgw.started() as server, fault_proxy(server.port) as proxy:
        yield Far(server.make_bucket(), proxy)
