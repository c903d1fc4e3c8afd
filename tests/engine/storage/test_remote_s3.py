from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest

from inferay.engine.storage import Access
from inferay.engine.storage.filesystems import open_filesystem
from inferay.engine.storage.read_errors import ReadError
from inferay.engine.storage.remote import Found, S3Files
from inferay.engine.storage.retries import (
    AccessDenied,
    BucketMissing,
    RetryPolicy,
    StorageUnavailable,
)
from tests.fault_proxy import fault_proxy
from tests.radosgw import Bucket, Server

TWICE = RetryPolicy(attempts_max=2, first_wait_s=0.001)
KEYS = [
    "in/a b.txt", "in/a#?%20&+.txt", "in/a/b", "in/a//c", "in/é\u2028.txt", "in/tab\tline\nx",
    "in/{0}*[1]", "in/z\U0001f600", "in/plain", "in/x/y/z/deep", "in/..a", "in/a.b",
]


def put(bucket: Bucket, key: str, content: bytes) -> None:
    filesystem, name = open_filesystem(bucket.uri, bucket.access)
    filesystem.call_s3("put_object", Bucket=name, Key=key, Body=content)


def fetched(files: S3Files, found: Found) -> bytes:
    file = io.BytesIO()
    files.fetch(found, file)
    return file.getvalue()


def test_keys_of_any_characters_are_listed_in_bytewise_order_and_read(bucket: Bucket) -> None:
    for key in KEYS:
        put(bucket, key, key.encode())
    put(bucket, "in/folder/", b"")   # as a console puts it in place of a folder
    put(bucket, "into/other", b"")   # begins alike, and is not in the folder
    files = S3Files(f"{bucket.uri}/in", bucket.access)
    found = list(files.list())
    assert [f"in/{one.path}" for one in found] == sorted(KEYS, key=str.encode)
    assert [fetched(files, one).decode() for one in found] == [f"in/{one.path}" for one in found]
    assert [files.stat(one.path) for one in found] == found


def test_more_keys_than_a_page_holds_are_listed_once_each(bucket: Bucket) -> None:
    filesystem, name = open_filesystem(bucket.uri, bucket.access)
    filesystem.pipe({f"{name}/{number:05d}": b"" for number in range(1100)})
    listed = [one.path for one in S3Files(bucket.uri, bucket.access).list()]
    assert listed == [f"{number:05d}" for number in range(1100)]


def test_an_object_that_was_replaced_is_a_changed_input(bucket: Bucket) -> None:
    put(bucket, "k", b"one")
    files = S3Files(bucket.uri, bucket.access)
    found = files.stat("k")
    put(bucket, "k", b"two")
    with pytest.raises(ReadError, match="has changed") as caught:
        fetched(files, found)
    assert caught.value.code == "InputChanged"


def test_what_is_missing_is_named(bucket: Bucket, radosgw: Server) -> None:
    with pytest.raises(ReadError, match="nothing does not exist") as caught:
        S3Files(bucket.uri, bucket.access).stat("nothing")
    assert caught.value.code == "InputMissing"
    missing = radosgw.make_bucket().through(radosgw.endpoint_url)
    other = dataclasses.replace(missing.access.places[0], prefix="s3://no-such-bucket")
    with pytest.raises(BucketMissing):
        list(S3Files("s3://no-such-bucket/x", Access((other,))).list())


def test_a_wrong_secret_is_named_and_not_shown(bucket: Bucket) -> None:
    wrong = dataclasses.replace(bucket.access.places[0], secret_access_key="geheim-und-falsch")
    with pytest.raises(AccessDenied) as caught:
        list(S3Files(bucket.uri, Access((wrong,))).list())
    assert "geheim" not in str(caught.value.as_dict())


def test_a_large_object_is_read_through_a_third_of_faults(
    bucket: Bucket, radosgw: Server
) -> None:
    content = bytes(range(256)) * 16_384
    put(bucket, "large", content)
    with fault_proxy(radosgw.port, rate=0.3, seed=5) as proxy:
        files = S3Files(bucket.uri, bucket.through(proxy.endpoint_url).access)
        for _ in range(5):
            assert fetched(files, files.stat("large")) == content
        assert proxy.faults


def test_a_store_that_is_down_is_named(bucket: Bucket, radosgw: Server) -> None:
    with fault_proxy(radosgw.port) as proxy:
        proxy.is_down = True
        with pytest.raises(StorageUnavailable):
            S3Files(bucket.uri, bucket.through(proxy.endpoint_url).access, TWICE).stat("x")


def test_credentials_and_endpoint_come_from_the_environment_where_there_is_no_datastore(
    bucket: Bucket, radosgw: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, "k", b"content")
    place = bucket.access.places[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL", place.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", place.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", place.secret_access_key)
    assert S3Files(bucket.uri, Access()).stat("k").size_bytes == 7


def test_a_public_bucket_is_read_without_any_credentials(
    bucket: Bucket, radosgw: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(bucket, "in/k", b"content")
    monkeypatch.setenv("AWS_ENDPOINT_URL", radosgw.endpoint_url)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(ReadError, match="check what the credentials allow"):
        list(S3Files(f"{bucket.uri}/in", Access()).list())
    filesystem, name = open_filesystem(bucket.uri, bucket.access)
    filesystem.call_s3("put_bucket_acl", Bucket=name, ACL="public-read")
    filesystem.call_s3("put_object_acl", Bucket=name, Key="in/k", ACL="public-read")
    files = S3Files(f"{bucket.uri}/in", Access())
    assert [fetched(files, found) for found in files.list()] == [b"content"]
