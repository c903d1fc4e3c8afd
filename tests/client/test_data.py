"""Data assets: content that goes into a datastore once, and addresses that are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inferay import Client
from inferay.client.http import Http
from inferay.engine.resources import Data, Datastore
from inferay.errors import Conflict, InferayError, InvalidInput, NotFound
from tests.azurite import ACCOUNT, Container
from tests.cli.conftest import Served


@pytest.fixture
def folder(project: Path) -> Path:
    """A folder with files of all kinds of names and sizes."""
    folder = project / "texts"
    (folder / "in" / "ner").mkdir(parents=True)
    (folder / "a b#?%.txt").write_bytes(b"1")
    (folder / "in" / "é.txt").write_bytes(b"")
    (folder / "in" / "ner" / "large").write_bytes(os.urandom(3 << 20))
    return folder


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that files are sent to."""
    found: list[str] = []
    upload = Http.upload

    def watched(self: Http, path: str, *rest: object) -> None:
        found.append(path)
        upload(self, path, *rest)   # type: ignore[arg-type]

    monkeypatch.setattr(Http, "upload", watched)
    return found


def test_a_version_keeps_the_content_that_a_folder_had(
    client: Client, served: Served, folder: Path, sent: list[str]
) -> None:
    before = content(folder)
    told: list[tuple[str, int, int]] = []
    first = client.data.create_or_update(
        Data(name="texts", path=str(folder)), progress=lambda *one: told.append(one)
    )
    assert (first.version, len(sent)) == ("1", 3)
    size_bytes = sum(map(len, before.values()))
    assert told[-1] == ("uploading", size_bytes, size_bytes)
    assert ("hashing", size_bytes, size_bytes) in told
    again = client.data.create_or_update(Data(name="texts", version="1", path=str(folder)))
    assert (again.path, len(sent)) == (first.path, 3)   # the same content: nothing is sent
    (folder / "a b#?%.txt").write_bytes(b"2")
    with pytest.raises(Conflict, match="exists already with other content"):
        client.data.create_or_update(Data(name="texts", version="1", path=str(folder)))
    second = client.data.create_or_update(Data(name="texts", path=str(folder)))
    assert (second.version, second.path == first.path) == ("2", False)
    prefix = "azureml://datastores/workspaceblobstore/paths/"
    assert first.path.startswith(f"{prefix}LocalUpload/")
    assert first.path.endswith("/texts")
    root = served.plane.workspace.datastores / "workspaceblobstore"
    assert content(root / first.path.removeprefix(prefix)) == before
    assert content(root / second.path.removeprefix(prefix)) == content(folder)
    assert [one.version for one in client.data.list("texts")] == ["2", "1"]


def test_an_upload_that_broke_off_is_completed(
    client: Client, folder: Path, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = Http.upload

    def broken(self: Http, path: str, *rest: object) -> None:
        if "large?" in path:
            raise InferayError("cut")
        upload(self, path, *rest)   # type: ignore[arg-type]

    with monkeypatch.context() as during:
        during.setattr(Http, "upload", broken)
        with pytest.raises(InferayError, match="cut"):
            client.data.create_or_update(Data(name="t", path=str(folder)))
    assert client.data.create_or_update(Data(name="t", path=str(folder))).version == "1"


def test_bytes_that_are_not_those_announced_are_not_kept(client: Client, served: Served) -> None:
    digest = "0" * 64
    address = f"/v1/datastores/workspaceblobstore/uploads/{digest}"
    headers = {"Content-Length": "3"}
    with pytest.raises(InvalidInput, match="changed while it was uploaded"):
        client.http.upload(f"{address}/d/x?sha256={digest}", [b"abc"], headers)
    assert client.http.get(address)["files"] == 0
    with pytest.raises(InvalidInput, match=r"no relative path without '\.\.'"):
        client.http.upload(f"{address}/d/%2E%2E/%2E%2E/x?sha256={digest}", [b"abc"], headers)
    for store, wrong in (("nosuch", digest), ("workspaceblobstore", "x")):
        with pytest.raises((NotFound, InvalidInput)):
            client.http.get(f"/v1/datastores/{store}/uploads/{wrong}")


@pytest.mark.parametrize(("kind", "name", "said"), [
    ("uri_file", "texts", "expected a file, got a folder"),
    ("uri_folder", "texts/in/é.txt", "expected a folder, got a file"),
    ("mltable", "texts", "expected a file 'MLTable' in the folder"),
])
def test_what_is_not_of_its_type_is_refused(
    client: Client, folder: Path, kind: str, name: str, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        client.data.create_or_update(Data(name="t", type=kind, path=name))   # type: ignore[arg-type]
    body = {"properties": {"dataType": kind, "dataUri": str(folder.parent / name)}}
    with pytest.raises(InvalidInput, match="dataUri"):
        client.http.put("/v1/data/t/versions/1", body)


def test_a_public_uri_is_kept_as_it_is(client: Client, sent: list[str]) -> None:
    for number, uri in enumerate(("https://example.org/x.csv", "s3://open-data/x.csv")):
        data = Data(name=f"public{number}", type="uri_file", path=uri)
        assert client.data.create_or_update(data).path == uri
    assert sent == []


def test_content_goes_into_the_datastore_that_is_named(
    client: Client, container: Container, folder: Path
) -> None:
    client.datastores.create_or_update(Datastore(
        name="blobs", type="azure_blob", account_name=ACCOUNT, container_name=container.name,
        endpoint=container.place.endpoint_url,
        credentials={"account_key": container.place.account_key},   # type: ignore[arg-type]
    ))
    made = client.data.create_or_update(Data(name="far", path=str(folder)), datastore="blobs")
    prefix = "azureml://datastores/blobs/paths/"
    key = made.path.removeprefix(prefix)
    found = container.blobs(f"{key}/")
    assert {name.removeprefix(f"{key}/"): data for name, data in found.items()} == content(folder)
    again = client.data.create_or_update(Data(name="far", path=str(folder)), datastore="blobs")
    assert again.path == made.path
