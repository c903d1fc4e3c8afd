from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.storage import datastore_uri, is_uri, resolve_path
from inferay.errors import InvalidInput, NotFound

STORES = {"workspaceblobstore": Path("/data/blob"), "lake": Path("/lake")}
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
])
def test_what_a_value_means(value: str, expected: str) -> None:
    assert resolve_path(value, STORES) == Path(expected)


@pytest.mark.parametrize("value", [
    "relative/path", "", ".", "~/x", "file:relative", "/nul\0byte", "file:///nul%00byte",
    "azureml:data:1",
])
def test_what_is_no_absolute_path_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match="is not an absolute path"):
        resolve_path(value, STORES)


@pytest.mark.parametrize("scheme", ["https", "s3", "abfss", "wasbs", "gs", "gopher"])
def test_a_scheme_that_cannot_be_read_is_refused_by_name(scheme: str) -> None:
    with pytest.raises(InvalidInput, match=f"scheme '{scheme}' are not supported"):
        resolve_path(f"{scheme}://host/path", STORES)


def test_an_unknown_datastore_is_named_with_the_nearest_one() -> None:
    with pytest.raises(NotFound, match="no datastore 'lakes'; did you mean 'lake'"):
        resolve_path("azureml://datastores/lakes/paths/a", STORES)


@pytest.mark.parametrize("path", [
    "../x", "a/../../x", "..", "a/..\\..\\x", "/etc/passwd/../../..", "nul\0",
])
def test_a_path_never_leaves_its_datastore(path: str) -> None:
    with pytest.raises(InvalidInput):
        resolve_path(f"azureml://datastores/lake/paths/{path}", STORES)


def test_an_absolute_path_in_a_datastore_is_below_it() -> None:
    assert resolve_path("azureml://datastores/lake/paths//etc/passwd", STORES) == Path(
        "/lake/etc/passwd"
    )


@given(st.text(max_size=30))
def test_whatever_is_written_stays_in_the_datastore(path: str) -> None:
    try:
        found = resolve_path(datastore_uri("lake", path), STORES)
    except InvalidInput:
        return
    assert found.is_relative_to("/lake")


def test_a_datastore_uri_is_read_as_it_was_made() -> None:
    assert datastore_uri("lake", "/a/b") == "azureml://datastores/lake/paths/a/b"
    assert resolve_path(datastore_uri("lake", "a/b"), STORES) == Path("/lake/a/b")
