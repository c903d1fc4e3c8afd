from __future__ import annotations

import json

import pytest

from inferay.errors import InvalidInput
from tests.serve.server.conftest import Serve

PLAIN = "def run(data):\n    return data\n"


@pytest.mark.parametrize(
    ("version", "key", "says"),
    [
        (None, "swagger", "2.0"), ("2", "swagger", "2.0"), ("2.0", "swagger", "2.0"),
        ("3", "openapi", "3.0.3"), ("3.0", "openapi", "3.0.3"), ("3.1", "openapi", "3.1.0"),
    ],
)
def test_the_service_describes_itself(
    serve: Serve, version: str | None, key: str, says: str
) -> None:
    found = serve(PLAIN).get("/swagger.json", params={"version": version} if version else None)
    assert (found.status_code, found.headers["content-type"]) == (200, "application/json")
    document = found.json()
    assert document[key] == says
    assert set(document["paths"]) == {"/", "/score", "/swagger.json"}
    assert document["info"]["title"] == "svc"
    schemas = document["definitions"] if key == "swagger" else document["components"]["schemas"]
    assert schemas["ServiceInput"] == schemas["ServiceOutput"] == {"type": "object", "example": {}}


def test_a_version_that_there_is_not_is_not_found(serve: Serve) -> None:
    found = serve(PLAIN).get("/swagger.json", params={"version": "4"})
    assert found.status_code == 404
    said = "Swagger version [4] is not valid. Supported versions: [2, 3, 3.1]."
    assert found.json() == {"message": said}


@pytest.mark.parametrize(
    ("name", "version"),
    [("swagger.json", "2"), ("swagger2.json", "2"), ("swagger3.json", "3")],
)
def test_a_file_in_the_code_folder_wins(serve: Serve, name: str, version: str) -> None:
    client = serve(PLAIN, files={name: json.dumps({"mine": True})})
    assert client.get("/swagger.json", params={"version": version}).json() == {"mine": True}
    other = "3" if version == "2" else "2"
    assert "mine" not in client.get("/swagger.json", params={"version": other}).json()


def test_a_file_that_is_no_json_is_refused_when_it_is_loaded(serve: Serve) -> None:
    with pytest.raises(InvalidInput, match=r"swagger\.json in the code folder is not JSON"):
        serve(PLAIN, files={"swagger.json": "{"})
