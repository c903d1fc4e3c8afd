from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.resources import (
    DatastorePath,
    Reference,
    is_datastore_path,
    is_local_path,
    parse_datastore_path,
    parse_reference,
)
from inferay.errors import InvalidInput

WORKSPACE = (
    "/subscriptions/s/resourceGroups/r/providers/Microsoft.MachineLearningServices/workspaces/w"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("azureml:m:1", ("m", "1", None, None)),
        ("azureml:m@latest", ("m", None, "latest", None)),
        ("azureml:cpu-cluster", ("cpu-cluster", None, None, None)),
        ("m2@latest", ("m2", None, "latest", None)),
        ("m:3", ("m", "3", None, None)),
        ("azureml:AzureML-sklearn-1.0-ubuntu20.04-py38-cpu@latest",
         ("AzureML-sklearn-1.0-ubuntu20.04-py38-cpu", None, "latest", None)),
        (f"{WORKSPACE}/models/m/versions/2", ("m", "2", None, None)),
        (f"azureml:{WORKSPACE}/computes/c", ("c", None, None, None)),
        (f"{WORKSPACE}/environments/e/labels/latest", ("e", None, "latest", None)),
        ("azureml://registries/azureml/environments/e/versions/5", ("e", "5", None, "azureml")),
        ("azureml://registries/azureml/models/m/labels/latest", ("m", None, "latest", "azureml")),
        ("azureml://locations/eastus/workspaces/w/models/m/versions/1", ("m", "1", None, None)),
    ],
)  # fmt: skip
def test_references_are_understood(
    text: str, expected: tuple[str, str | None, str | None, str | None]
) -> None:
    assert parse_reference(text) == Reference(*expected, raw=text)


@pytest.mark.parametrize(
    "text",
    [
        "", "azureml:", "azureml:m:", "azureml:m@", "azureml:m:1@latest", "azureml:m:1:2",
        "azureml:../x:1", "a b:1", "./model", "/etc/passwd", "https://x/y", "azureml:m:..",
        "/subscriptions/s/../..", "azureml://registries/r", "azureml:m\n:1", "x" * 3000,
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected azureml:NAME:VERSION"):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("azureml://datastores/d/paths/a/b.csv", DatastorePath("d", "a/b.csv")),
        ("azureml://datastores/d/paths/", DatastorePath("d", "")),
        ("azureml://datastores/d", DatastorePath("d", "")),
        ("azureml://datastores/d/paths/a b/é.csv", DatastorePath("d", "a b/é.csv")),
        ("azureml://datastores/d/paths/a..b/...", DatastorePath("d", "a..b/...")),
        ("azureml://subscriptions/s/resourcegroups/r/workspaces/w/datastores/d/paths/x",
         DatastorePath("d", "x")),
        ("azureml://subscriptions/s/resourceGroups/r/providers/Microsoft.MachineLearningServices/"
         "workspaces/w/datastores/d/paths/x", DatastorePath("d", "x")),
    ],
)  # fmt: skip
def test_datastore_paths_are_understood(text: str, expected: DatastorePath) -> None:
    assert is_datastore_path(text)
    assert parse_datastore_path(text) == expected
    assert parse_datastore_path(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "azureml://datastores/d/paths/../x", "azureml://datastores/d/paths/a/..",
        "azureml://datastores/d/paths/a\\..\\b", "azureml://datastores/d/paths/a\0b",
        "azureml://datastores/../paths/a", "azureml://datastores//paths/a",
        "azureml://jobs/j/outputs", "s3://b/k", "",
    ],
)  # fmt: skip
def test_datastore_paths_that_lead_out_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_datastore_path(text)


@given(st.text(max_size=80))
def test_any_text_is_a_reference_with_a_legal_name_or_is_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidInput as error:
        message = error.message
    else:
        message = reference.name
        assert "/" not in reference.name
        assert reference.name != ".."
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("./model", True), ("model", True), ("/abs/model", True), ("file:///abs", True),
        ("a:b", True), ("azureml:m:1", False), ("azureml://datastores/d/paths/x", False),
        ("https://host/x", False), ("s3://b/k", False), (f"{WORKSPACE}/codes/c", False),
        (WORKSPACE.upper(), False), ("/workspaces/default/data/d/versions/1", False),
        ("/Workspaces/w/models/m/versions/1", False), ("/workspaces/repo/data/d", True),
        ("/workspaces/repo/data/d/versions/1/x.csv", True),
    ],
)  # fmt: skip
def test_local_paths_are_told_from_ids(text: str, expected: bool) -> None:
    assert is_local_path(text) is expected
