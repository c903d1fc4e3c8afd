from __future__ import annotations

import contextlib
from collections import Counter

import pytest

from inferay.engine.storage import open_filesystem
from tests.fault_proxy import KINDS, drawn, fault_proxy
from tests.radosgw import Bucket, Server

pytestmark = pytest.mark.timeout(120)


def test_without_faults_everything_passes(radosgw: Server, bucket: Bucket) -> None:
    with fault_proxy(radosgw.port) as proxy:
        far = bucket.through(proxy.endpoint_url)
        filesystem, path = open_filesystem(far.uri, far.access)
        filesystem.pipe_file(f"{path}/a", b"x" * 3_000_000)
        assert far.objects() == bucket.objects() == {"a": b"x" * 3_000_000}
        assert proxy.faults == Counter()
        assert proxy.requests["GET"] >= 2


@pytest.mark.parametrize(("kind", "is_carried_out"), [
    ("refused", False), ("failed", False), ("lost", True), ("cut", True), ("stalled", True),
])
def test_each_fault_is_what_it_says(
    radosgw: Server, bucket: Bucket, kind: str, is_carried_out: bool
) -> None:
    with fault_proxy(radosgw.port, rate=1.0, kinds=(kind,)) as proxy:
        far = bucket.through(proxy.endpoint_url)
        filesystem, path = open_filesystem(far.uri, far.access)
        with pytest.raises(Exception, match=r".*"):
            filesystem.call_s3("put_object", Bucket=path, Key="a", Body=b"x")
    # aiohttp asks once more by itself when the answer to an idempotent request fails to come.
    assert set(proxy.faults) == {kind}
    assert bucket.objects() == ({"a": b"x"} if is_carried_out else {})


def test_a_server_that_is_down_comes_back(radosgw: Server, bucket: Bucket) -> None:
    with fault_proxy(radosgw.port) as proxy:
        far = bucket.through(proxy.endpoint_url)
        proxy.is_down = True
        with contextlib.suppress(Exception):
            far.objects()
        assert sum(proxy.requests.values()) == 0
        proxy.is_down = False
        assert far.objects() == {}


def test_a_seed_draws_the_same_faults_each_time() -> None:
    first, second = ([draw(n, "GET", "/") for n in range(1000)]
                     for draw in (drawn(0.3, 5), drawn(0.3, 5)))
    assert first == second
    counts = Counter(first)
    assert set(counts) == {None, *KINDS}
    assert 650 < counts[None] < 750
