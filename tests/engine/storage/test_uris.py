from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.storage import datastore_uri, is_remote, is_uri, redacted, resolve
from inferay.errors import InvalidInput, NotFound

STORES = {
    "workspaceblobstore": "/data/blob", "lake": "/lake", "bucket": "s3://big", "deep": "s3://big/a/b",
    "blobs": "abfs://box@acct.dfs.core.windows.net", "near": "abfs://box@acct.dfs.127.0.0.1:10000",
}
LONG = (
    "azureml://subscriptions/s/resourcegroups/g/providers/Microsoft.MachineLearningServices/"
    "workspaces/w/datastores/lake/paths/a/b.csv"
)


@pytest.mark.parametrize(("value", "expected"), [
    ("azureml:data:1", True), ("azureml://datastores/d/paths/p", True), ("https://h/x", True),
    ("file:///a", True), ("/a/b", False), ("a/b", False), ("", False), ("/a:b", False),
])
def test_a_uri_is_told_from_a_path(value: str, expected: bool) -> None:
    assert is_uri(value) == expected


@pytest.mark.parametrize(("value", "expected"), [
    ("/a/b", "/a/b"),
    ("/a/./b//c/", "/a/b/c"),
    ("/a/x/../b", "/a/b"),
    ("/with space/é#?%20", "/with space/é#?%20"),
    ("/new\nline", "/new\nline"),
    ("file:///a/b", "/a/b"),
    ("file:///a%20b/%C3%A9", "/a b/é"),
    ("azureml://datastores/workspaceblobstore/paths/in/x.csv", "/data/blob/in/x.csv"),
    ("azureml://datastores/lake/paths/", "/lake"),
    ("azureml://datastores/lake/paths/a//b/./c", "/lake/a/b/c"),
    (LONG, "/lake/a/b.csv"),
    ("azureml://datastores/blobs/paths/a b.csv", "abfs://box@acct.dfs.core.windows.net/a b.csv"),
    ("abfss://c1x@other.dfs.core.windows.net/a/?b/", "abfs://c1x@other.dfs.core.windows.net/a/?b"),
    ("wasbs://box@ACCT.blob.core.windows.net/a", "abfs://box@acct.dfs.core.windows.net/a"),
    ("https://acct.blob.core.windows.net/box/a%20b", "abfs://box@acct.dfs.core.windows.net/a b"),
    ("http://127.0.0.1:10000/acct/box/a", "abfs://box@acct.dfs.127.0.0.1:10000/a"),
    ("https://acct.blob.core.windows.net/box/a?sig=s",
     "https://acct.blob.core.windows.net/box/a?sig=s"),
    ("https://acct.blob.core.windows.net/boxes/a", "https://acct.blob.core.windows.net/boxes/a"),
    ("s3://bucket/a/b.csv", "s3://bucket/a/b.csv"),
    ("s3://bucket/a//b %20#?é.csv", "s3://bucket/a//b %20#?é.csv"),
    ("s3://bucket/folder/", "s3://bucket/folder"),
    ("s3://bucket", "s3://bucket"),
    ("S3://Bucket/Key", "s3://Bucket/Key"),
    ("HTTPS://Host/X", "https://Host/X"),
    ("azureml://datastores/bucket/paths/in/x.csv", "s3://big/in/x.csv"),
    ("azureml://datastores/deep/paths/", "s3://big/a/b"),
    ("azureml://datastores/deep/paths/x/y", "s3://big/a/b/x/y"),
    ("https://host/a%20b?sig=1", "https://host/a%20b?sig=1"),
    ("http://host:8080/x", "http://host:8080/x"),
])
def test_what_a_value_means(value: str, expected: str) -> None:
    assert resolve(value, STORES) == expected


@pytest.mark.parametrize("value", [
    "relative/path", "", ".", "~/x", "file:relative", "/nul\0byte", "file:///nul%00byte",
    "azureml:data:1",
])
def test_what_is_no_absolute_path_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match="is not an absolute path"):
        resolve(value, STORES)


@pytest.mark.parametrize("scheme", ["adl", "gs", "gopher", "ftp"])
def test_a_scheme_that_cannot_be_read_is_refused_by_name(scheme: str) -> None:
    with pytest.raises(InvalidInput, match=f"scheme '{scheme}' are not supported"):
        resolve(f"{scheme}://host/path", STORES)


def test_an_unknown_datastore_is_named_with_the_nearest_one() -> None:
    with pytest.raises(NotFound, match="no datastore 'lakes'; did you mean 'lake'"):
        resolve("azureml://datastores/lakes/paths/a", STORES)


@pytest.mark.parametrize("path", [
    "../x", "a/../../x", "..", "a/..\\..\\x", "/etc/passwd/../../..", "nul\0",
])
def test_a_path_never_leaves_its_datastore(path: str) -> None:
    with pytest.raises(InvalidInput):
        resolve(f"azureml://datastores/lake/paths/{path}", STORES)


def test_an_absolute_path_in_a_datastore_is_below_it() -> None:
    found = resolve("azureml://datastores/lake/paths//etc/passwd", STORES)
    assert found == "/lake/etc/passwd"


@given(st.text(max_size=30))
def test_whatever_is_written_stays_in_the_datastore(path: str) -> None:
    try:
        found = resolve(datastore_uri("lake", path), STORES)
    except InvalidInput:
        return
    assert found == "/lake" or found.startswith("/lake/")


def test_a_datastore_uri_is_read_as_it_was_made() -> None:
    assert datastore_uri("lake", "/a/b") == "azureml://datastores/lake/paths/a/b"
    assert resolve(datastore_uri("lake", "a/b"), STORES) == "/lake/a/b"


@pytest.mark.parametrize("value", [
    "s3://", "s3:///key", "s3://b@d/key", "s3://bucket/a/../b", "s3://bucket/nul\0",
    "s3://bucket/" + "k" * 1025, "https://", "https:///path", "https://host:port/x",
    "https://[::1/x", "https://ho st/x", "https://host/a\nb",
])
def test_a_malformed_address_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput):
        resolve(value, STORES)


def test_a_password_in_a_uri_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidInput, match="user name or password") as caught:
        resolve("https://user:geheim@host/x", STORES)
    assert "geheim" not in str(caught.value.as_dict())


@pytest.mark.parametrize("value", [
    "ftp://user:geheim@host/x", "ftp://user:ge/geheim@host/x", "abfss://host/x?sig=geheim",
    "abfss://box@acct.dfs.core.windows.net/x?se=1&sig=geheim", "wasb://ge heim:geheim@host/x",
    "s3://KEY:geheim@bucket/x", "s3://KEY:ge/geheim@bucket/x",
])
def test_a_secret_in_an_address_that_is_refused_is_not_repeated(value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        resolve(value, {})
    assert "geheim" not in str(caught.value.as_dict())


@pytest.mark.parametrize(("value", "expected"), [
    ("https://host/x?sig=geheim", "https://host/x?…"), ("HTTPS://h?a=b@c", "HTTPS://h?…"),
    ("ftp://user:geheim@h/x", "ftp://…@h/x"), ("https://user@h:80/x", "https://…@h:80/x"),
    ("s3://bucket/what?", "s3://bucket/what?"), ("s3://bucket/a@b:c", "s3://bucket/a@b:c"),
    ("https://h:80/a@b", "https://h:80/a@b"), ("file:///a?b", "file:///a?b"),
    ("azureml://datastores/d/paths/a?b", "azureml://datastores/d/paths/a?b"), ("/a?b@c", "/a?b@c"),
])
def test_what_may_be_a_secret_is_not_shown(value: str, expected: str) -> None:
    assert redacted(value) == expected


@pytest.mark.parametrize(("value", "expected"), [
    ("s3://b/k", True), ("https://h/x", True), ("http://h/x", True), ("/a/b", False),
    ("/s3://b", False),
])
def test_what_is_on_another_machine(value: str, expected: bool) -> None:
    assert is_remote(value) == expected
