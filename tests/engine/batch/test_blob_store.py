"""What only a store of Azure's blobs has: lost answers, blocks, races for a name."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from inferay.engine.batch.blob_store import BlobStore
from inferay.engine.batch.remote_store import PUT_BYTES_MAX
from inferay.engine.batch.store import open_store
from inferay.engine.storage import open_filesystem
from inferay.engine.storage.retries import RetryPolicy, StorageThrottled
from tests.azurite import Azurite, Container
from tests.fault_proxy import fault_proxy


def store_at(container: Container, policy: RetryPolicy | None = None) -> BlobStore:
    filesystem, path = open_filesystem(f"{container.uri}/job", container.access)
    return BlobStore(filesystem, path, policy or RetryPolicy(first_wait_s=0.01))


def test_names_are_put_once_read_in_ranges_and_deleted(container: Container) -> None:
    store = store_at(container)
    for name in ("b/2", "b/1", "b/é", "c"):
        store.create(name, name.encode())
    with pytest.raises(FileExistsError, match="job/c exists already"):
        store.create("c", b"c")
    store.replace("c", b"other")
    assert store.names("b/") == ["b/1", "b/2", "b/é"]
    assert list(store.read_each([("c", 1, 3), ("c", 3, None), ("c", 9, None), ("c", 9, 12),
                                 ("b/1", 0, None)])) == [b"th", b"er", b"", b"", b"b/1"]
    with pytest.raises(FileNotFoundError):
        store.read("none")
    store.remove("c")
    store.remove("c")
    store.delete("b")
    assert (store.exists("c"), container.blobs()) == (False, {})


def test_one_of_many_writers_gets_a_name(container: Container) -> None:
    store = store_at(container)
    large = [os.urandom(9 << 20), b"end"]

    def win(number: int) -> bool:
        try:
            if number % 8:
                store.create("name", str(number).encode())
            else:
                store.create_stream("name", iter(large))
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(win, range(1, 33))) == 1


def test_of_two_that_put_blocks_one_gets_the_name(container: Container) -> None:
    store = store_at(container)
    uploads = [store._upload("name") for _ in range(2)]
    for number, upload in enumerate(uploads):
        upload.begin()
        upload.add(str(number).encode() * 100)
    uploads[1].complete()
    with pytest.raises(FileExistsError, match="job/name exists already"):
        uploads[0].complete()
    assert container.blobs() == {"job/name": b"1" * 100}


def test_lost_answers_and_throttling_leave_each_put_exact(
    container: Container, azurite: Azurite
) -> None:
    large = os.urandom(PUT_BYTES_MAX + (1 << 20))
    with fault_proxy(azurite.port, rate=0.3, seed=5) as proxy:
        store = store_at(container.through(proxy.endpoint_url))
        for number in range(20):
            store.create(str(number), str(number).encode())
        store.create("large", large)
        assert store.read("large") == large
        assert sum(proxy.faults.values()) >= 5
    assert container.blobs() == {
        **{f"job/{number}": str(number).encode() for number in range(20)}, "job/large": large
    }
    with fault_proxy(azurite.port, choose=lambda *_: "refused") as proxy:
        twice = RetryPolicy(attempts_max=2, first_wait_s=0.001)
        store = store_at(container.through(proxy.endpoint_url), twice)
        with pytest.raises(StorageThrottled, match="use fewer workers"):
            store.create("name", b"")


def test_the_store_of_a_place_is_opened_by_its_address(container: Container) -> None:
    open_store(f"{container.uri}/x/y", container.access).create("z", b"")
    assert container.blobs() == {"x/y/z": b""}
