"""What only an object store has: lost answers, uploads in parts, refusals by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from inferay.engine.batch import object_store
from inferay.engine.batch.multipart import PART_BYTES, PARTS_MAX, part_sizes, parts_of
from inferay.engine.batch.object_store import ObjectStore
from inferay.engine.batch.store import open_store
from inferay.engine.storage import open_filesystem
from inferay.engine.storage.retries import (
    AccessDenied,
    BucketMissing,
    RetryPolicy,
    StorageThrottled,
    StorageUnavailable,
)
from inferay.errors import InvalidInput
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.radosgw import Bucket, Server

pytestmark = pytest.mark.timeout(120)

Choose = Callable[[int, str, str], str | None]

MB = 1 << 20


def store_at(bucket: Bucket, policy: RetryPolicy | None = None) -> ObjectStore:
    filesystem, path = open_filesystem(f"{bucket.uri}/job", bucket.access)
    return ObjectStore(filesystem, path, policy or RetryPolicy(first_wait_s=0.01))


class Faulty:
    """A proxy whose next faults a test sets: a kind for each request that a word is found in."""

    def __init__(self) -> None:
        self.next: list[tuple[str, str]] = []

    def __call__(self, number: int, method: str, path: str) -> str | None:
        if self.next and self.next[0][0] in f"{method} {path}":
            return self.next.pop(0)[1]
        return None


@pytest.fixture
def faulty() -> Faulty:
    return Faulty()


@pytest.fixture
def proxy(radosgw: Server, faulty: Faulty) -> Iterator[FaultProxy]:
    with fault_proxy(radosgw.port, choose=faulty) as found:
        yield found


@pytest.fixture
def store(bucket: Bucket, proxy: FaultProxy) -> ObjectStore:
    return store_at(bucket.through(proxy.endpoint_url))


@pytest.mark.parametrize("kind", ["lost", "cut", "stalled", "refused", "failed"])
def test_a_put_whose_answer_was_lost_is_not_taken_for_anothers(
    store: ObjectStore, bucket: Bucket, faulty: Faulty, kind: str
) -> None:
    faulty.next = [("PUT", kind)] * 3
    store.create("name", b"mine")
    assert faulty.next == []
    assert bucket.objects() == {"job/name": b"mine"}
    faulty.next = [("PUT", kind)] * 3
    with pytest.raises(FileExistsError, match="job/name exists already"):
        store.create("name", b"mine")   # the same content, but of another put


@pytest.mark.parametrize("kind", ["lost", "cut", "stalled", "refused", "failed"])
def test_what_is_read_is_whole_whatever_happens_on_the_way(
    store: ObjectStore, faulty: Faulty, kind: str
) -> None:
    data = os.urandom(3 * MB)
    store.create("name", data)
    faulty.next = [("GET", kind)] * 4
    assert store.read("name") == data
    faulty.next = [("GET", kind)] * 4
    assert store.read("name", 100, 2 * MB) == data[100 : 2 * MB]
    assert faulty.next == []


@pytest.mark.parametrize("step", ["uploads&", "POST /bucket", "partNumber=2", "POST *uploadId"])
@pytest.mark.parametrize("kind", ["lost", "failed"])
def test_an_upload_survives_a_fault_at_every_step(
    store: ObjectStore, bucket: Bucket, faulty: Faulty, step: str, kind: str
) -> None:
    data = os.urandom(PART_BYTES + 3 * MB)
    *_, word = step.split("*")
    faulty.next = [(word, kind)]
    store.create_stream("big", (data[at : at + MB] for at in range(0, len(data), MB)))
    assert faulty.next == []
    assert bucket.objects() == {"job/big": data}
    assert bucket.uploads() == []


def test_an_upload_that_fails_leaves_nothing(store: ObjectStore, bucket: Bucket) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield os.urandom(MB)
        raise KeyError("stop")

    with pytest.raises(KeyError):
        store.create_stream("big", chunks())
    assert (bucket.objects(), bucket.uploads()) == ({}, [])


def test_what_a_killed_writer_left_is_aborted_by_the_next(
    store: ObjectStore, bucket: Bucket
) -> None:
    filesystem, path = open_filesystem(bucket.uri, bucket.access)
    for key in ("job/big", "job/bigger"):
        filesystem.call_s3("create_multipart_upload", Bucket=path, Key=key)
    store.create_stream("big", (os.urandom(MB) for _ in range(10)))
    assert bucket.uploads() == ["job/bigger"]


def test_a_target_that_appears_during_an_upload_is_not_overwritten(
    store: ObjectStore, bucket: Bucket
) -> None:
    def chunks() -> Iterator[bytes]:
        for number in range(20):
            if number == 15:
                store.replace("big", b"first")
            yield os.urandom(MB)

    with pytest.raises(FileExistsError, match="job/big exists already"):
        store.create_stream("big", chunks())
    assert (bucket.objects(), bucket.uploads()) == ({"job/big": b"first"}, [])


def test_a_target_that_exists_is_refused_before_anything_is_sent(store: ObjectStore) -> None:
    store.create("big", b"first")
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield bytes(MB)

    with pytest.raises(FileExistsError):
        store.create_stream("big", chunks())
    assert taken <= 2 * PART_BYTES // MB


def test_parts_hold_any_object_in_ten_thousand() -> None:
    largest = 5 << 40
    assert sum(islice(part_sizes(), PARTS_MAX)) >= largest
    for size_bytes in (1, 80 << 30, 1 << 40, largest):
        sizes = list(islice(part_sizes(size_bytes), PARTS_MAX))
        assert sum(sizes) >= size_bytes
        assert min(sizes) >= PART_BYTES
    assert next(part_sizes(1 << 40)) < 110 * MB


def test_parts_are_the_joined_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferay.engine.batch.multipart.PART_BYTES", 4)
    for chunks in ([], [b""], [b"abcdefghij"], [b"a", b"", b"bcde", b"fghij"], [b"abcd", b"efgh"]):
        parts = list(parts_of(chunks))
        assert b"".join(parts) == b"".join(chunks)
        assert all(len(part) == 4 for part in parts[:-1])
        assert all(0 < len(part) <= 4 for part in parts[-1:])


def test_many_names_are_listed_and_deleted(
    store: ObjectStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "DELETED_MAX", 7)
    names = [f"f/{number:03d} \n<é>&+%" for number in range(20)]
    for name in names:
        store.create(name, b"")
    store.create("g", b"")
    assert store.names("f/") == names
    store.delete("f")
    assert bucket.objects() == {"job/g": b""}


def test_throttling_and_outage_are_told_by_name(bucket: Bucket, radosgw: Server) -> None:
    few = RetryPolicy(attempts_max=3, first_wait_s=0.01)
    for kind, raised in (("refused", StorageThrottled), ("failed", StorageUnavailable),
                         ("lost", StorageUnavailable)):
        with fault_proxy(radosgw.port, rate=1.0, kinds=(kind,)) as proxy:
            far = store_at(bucket.through(proxy.endpoint_url), few)
            with pytest.raises(raised, match=r"reading s3://.*/job/x.*resume the job"):
                far.read("x")
    with pytest.raises(StorageUnavailable, match=r"check that the storage is up"):
        store_at(bucket.through(proxy.endpoint_url), few).read("x")   # nobody listens there


def test_a_refusal_is_told_at_once(bucket: Bucket, proxy: FaultProxy) -> None:
    missing = Bucket("s3://no-such-bucket", bucket.access)
    nowhere = Bucket(missing.uri, missing.through(proxy.endpoint_url).access)
    with pytest.raises(BucketMissing, match="create the bucket"):
        store_at(nowhere).create("x", b"")
    assert sum(proxy.requests.values()) == 1


def test_a_wrong_secret_is_told_without_it(bucket: Bucket, proxy: FaultProxy) -> None:
    (place,) = bucket.through(proxy.endpoint_url).access.places
    wrong = type(place)(place.prefix, place.endpoint_url, place.region, "inferay", "wrong-secret")
    store = open_store(f"{bucket.uri}/job", type(bucket.access)((wrong,)))
    with pytest.raises(AccessDenied, match="check the datastore's credentials") as caught:
        store.read("x")
    assert "wrong-secret" not in str(caught.value)
    assert sum(proxy.requests.values()) == 1


def test_a_name_that_no_key_can_have_is_refused(store: ObjectStore) -> None:
    with pytest.raises(InvalidInput, match="names there are UTF-8"):
        store.create(os.fsdecode(b"\xff"), b"")


def test_nothing_can_be_written_to_a_web_site(bucket: Bucket) -> None:
    with pytest.raises(InvalidInput, match=r"https://example\.org/x.*nothing can be written"):
        open_store("https://example.org/x", bucket.access)
