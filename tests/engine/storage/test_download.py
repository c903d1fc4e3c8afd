from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inferay.engine.storage.download import cached, check_kind, download
from inferay.engine.storage.filesystems import open_filesystem
from inferay.engine.storage.read_errors import ReadError
from inferay.errors import InvalidInput
from tests.radosgw import Bucket


def fill(bucket: Bucket, objects: dict[str, bytes]) -> None:
    filesystem, name = open_filesystem(bucket.uri, bucket.access)
    for key, content in objects.items():
        filesystem.call_s3("put_object", Bucket=name, Key=key, Body=content)


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_a_folder_and_a_file_are_copied_as_they_are(bucket: Bucket, tmp_path: Path) -> None:
    fill(bucket, {"m/a/b.bin": b"1", "m/c.bin": b"2", "mm": b"3"})
    download(f"{bucket.uri}/m", bucket.access, tmp_path / "m")
    assert content_of(tmp_path / "m") == {"a/b.bin": b"1", "c.bin": b"2"}
    download(f"{bucket.uri}/mm", bucket.access, tmp_path / "mm")
    assert (tmp_path / "mm").read_bytes() == b"3"
    check_kind(f"{bucket.uri}/m", bucket.access, "uri_folder")
    check_kind(f"{bucket.uri}/mm", bucket.access, "uri_file")


def test_nothing_and_what_no_folder_can_hold_are_refused(bucket: Bucket, tmp_path: Path) -> None:
    fill(bucket, {"m/../../x": b"1"})
    with pytest.raises(ReadError, match="does not exist"):
        download(f"{bucket.uri}/none", bucket.access, tmp_path / "none")
    with pytest.raises(InvalidInput, match="no folder can hold"):
        download(f"{bucket.uri}/m", bucket.access, tmp_path / "deep" / "m")
    assert content_of(tmp_path) == {}


def test_equal_content_is_fetched_once_however_many_ask(bucket: Bucket, tmp_path: Path) -> None:
    fill(bucket, {"m/a": b"1", "m/b": b"2"})
    uri = f"{bucket.uri}/m"
    with ThreadPoolExecutor(2) as threads:
        places = set(threads.map(lambda _: cached(uri, bucket.access, tmp_path), range(2)))
    (first,) = places
    assert (first.name, content_of(first)) == ("m", {"a": b"1", "b": b"2"})
    assert len(list(tmp_path.iterdir())) == 1
    fill(bucket, {"m/a": b"other"})
    second = cached(uri, bucket.access, tmp_path)
    assert content_of(second)["a"] == b"other"
    assert content_of(first)["a"] == b"1"
