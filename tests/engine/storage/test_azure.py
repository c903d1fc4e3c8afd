from __future__ import annotations

import base64
import dataclasses
import io
import time
from datetime import UTC, datetime, timedelta

import pytest

from inferay.engine.storage import Access
from inferay.engine.storage.azure import BlobFiles
from inferay.engine.storage.read_errors import ReadError
from inferay.engine.storage.remote import Found
from inferay.engine.storage.retries import (
    AccessDenied,
    BucketMissing,
    CredentialsExpired,
    RetryPolicy,
    StorageUnavailable,
)
from tests.azurite import ACCOUNT, ACCOUNT_KEY, Azurite, Container
from tests.fault_proxy import fault_proxy

TWICE = RetryPolicy(attempts_max=2, first_wait_s=0.001)
NAMES = [
    "in/a b.txt", "in/a#?%20&+.txt", "in/a/b", "in/a.txt", "in/é.txt", "in/{0}*[1]", "in/..a",
    "in/z\U0001f600", "in/z\uffee", "in/x/y/z/deep",
]


def fetched(files: BlobFiles, found: Found) -> bytes:
    file = io.BytesIO()
    files.fetch(found, file)
    return file.getvalue()


def test_blobs_of_any_names_are_listed_in_bytewise_order_and_read(container: Container) -> None:
    container.put({name: name.encode() for name in NAMES})
    container.put({"into/other": b"begins alike, and is not in the folder", "in/empty/e": b""})
    files = BlobFiles(f"{container.uri}/in", container.access)
    found = list(files.list())
    expected = sorted([*NAMES, "in/empty/e"], key=str.encode)
    assert [f"in/{one.path}" for one in found] == expected
    contents = ["" if name == "in/empty/e" else name for name in expected]
    assert [fetched(files, one).decode() for one in found] == contents
    assert [files.stat(one.path) for one in found] == found
    assert not files.is_empty()
    assert BlobFiles(f"{container.uri}/i", container.access).is_empty()


def test_a_blob_of_many_requests_is_read_whole_and_goes_on_where_it_broke_off(
    container: Container, azurite: Azurite
) -> None:
    data = bytes(range(256)) * (20 << 12)   # 20 MiB
    container.put({"large": data})
    with fault_proxy(azurite.port, rate=0.4, seed=3, kinds=("refused", "cut", "lost")) as proxy:
        far = container.through(proxy.endpoint_url)
        files = BlobFiles(far.uri, far.access, RetryPolicy(first_wait_s=0.01))
        assert fetched(files, files.stat("large")) == data
        assert sum(proxy.faults.values()) >= 1
    near = BlobFiles(container.uri, container.access)
    before = near.stat("large")
    container.put({"large": data})
    with pytest.raises(ReadError, match="has changed since"):
        fetched(near, before)


def test_what_cannot_be_read_is_named_without_secrets(
    container: Container, azurite: Azurite
) -> None:
    secret = base64.b64encode(b"nobody-shall-see-this").decode()
    wrong = dataclasses.replace(container.place, account_key=secret)
    with pytest.raises(AccessDenied, match="check the datastore's credentials") as denied:
        list(BlobFiles(container.uri, Access((wrong,)), TWICE).list())
    assert secret not in str(denied.value)
    gone = container.uri.replace(container.name, "no-such-container")
    place = dataclasses.replace(container.place, prefix=gone)
    with pytest.raises(BucketMissing, match="there is no such container"):
        list(BlobFiles(gone, Access((place,)), TWICE).list())
    with pytest.raises(ReadError, match="does not exist"):
        BlobFiles(container.uri, container.access, TWICE).stat("none")
    with fault_proxy(azurite.port, choose=lambda *_: "failed") as proxy:
        far = container.through(proxy.endpoint_url)
        with pytest.raises(StorageUnavailable):
            BlobFiles(far.uri, far.access, TWICE).stat("any")


def sas(container: Container, expires_in_s: float) -> str:
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    return str(generate_container_sas(
        ACCOUNT, container.name, account_key=ACCOUNT_KEY,
        permission=ContainerSasPermissions(read=True, list=True),
        start=datetime.now(UTC) - timedelta(days=1),
        expiry=datetime.fromtimestamp(time.time() + expires_in_s, UTC),
    ))


def test_a_shared_signature_reads_until_it_expires(container: Container) -> None:
    container.put({"a": b"1"})
    for seconds in (3600, -3600):
        place = dataclasses.replace(
            container.place, account_key="", sas_token="?" + sas(container, seconds)
        )
        files = BlobFiles(container.uri, Access((place,)), TWICE)
        if seconds > 0:
            assert [one.path for one in files.list()] == ["a"]
        else:
            with pytest.raises((CredentialsExpired, AccessDenied)) as refused:
                list(files.list())
            assert "sig=" not in str(refused.value)
