"""`@input_schema` and `@output_schema` of the inference-schema package, over HTTP.

In processes of their own: the package keeps the schemas of all functions of one name together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.serve.server.processes import Server

HEAD = """
import numpy as np
import pandas as pd
from azureml.contrib.services.aml_request import rawhttp
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema


def init():
    pass

"""

Start = Callable[..., Server]


@pytest.fixture(scope="module")
def doubling(start: Start) -> Iterator[httpx.Client]:
    """A server whose `run()` has the schema of a number."""
    server = start(HEAD + """
@input_schema("num", StandardPythonParameterType(1))
@output_schema(StandardPythonParameterType(2))
def run(num):
    return num * 2
""")
    with httpx.Client(base_url=server.url) as client:
        yield client


def test_an_argument_is_named_in_the_body_or_the_query(doubling: httpx.Client) -> None:
    assert doubling.post("/score", json={"num": 10, "more": 1}).json() == 20
    assert doubling.get("/score", params={"num": 10}).json() == 20
    assert doubling.options("/score").status_code == 200


def test_an_argument_that_is_missing_is_named(doubling: httpx.Client) -> None:
    for found in (
        doubling.get("/score", params={"a": 1}), doubling.post("/score", json={"a": 1})
    ):
        assert found.status_code == 400
        assert found.json() == {"message": "A value is not provided for the 'num' parameter."}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[1, 2, 3]", "POST body should be a JSON dictionary."),
        (b"", "POST body is empty. Expecting a JSON dictionary."),
        (b"{", "POST body could not be decoded as JSON: Expecting property name"),
        (b"\xff", "POST body could not be decoded as JSON"),
        (b"[" * 100_000, "POST body could not be decoded as JSON"),
    ],
    ids=["list", "empty", "cut", "not UTF-8", "deep"],
)
def test_a_body_that_is_no_json_object_is_refused(
    doubling: httpx.Client, body: bytes, said: str
) -> None:
    found = doubling.post(
        "/score", content=body, headers={"content-type": "application/json; charset=utf-8"}
    )
    assert found.status_code == 400
    assert found.json()["message"].startswith(said)


def test_another_content_type_is_refused(doubling: httpx.Client) -> None:
    content = b'{"num": 1}'
    found = doubling.post("/score", content=content, headers={"content-type": "text/plain"})
    assert found.status_code == 415
    assert found.json() == {"message": "Expects Content-Type to be application/json"}
    assert doubling.post("/score", content=content).status_code == 415


@pytest.mark.parametrize("version", ["2", "3", "3.1"])
def test_the_service_describes_the_schemas(doubling: httpx.Client, version: str) -> None:
    document = doubling.get("/swagger.json", params={"version": version}).json()
    schemas = document["definitions"] if version == "2" else document["components"]["schemas"]
    assert schemas["ServiceInput"]["properties"]["num"]["type"] == "integer"
    assert schemas["ServiceInput"]["example"] == {"num": 1}
    assert schemas["ServiceOutput"]["type"] == "integer"


def score(server: Server, body: Any) -> Any:
    found = httpx.post(f"{server.url}/score", json=body)
    assert found.status_code == 200, found.text
    return found.json()


def test_several_schemas_stack(start: Start) -> None:
    server = start(HEAD + """
@input_schema("num", StandardPythonParameterType(1))
@input_schema("nums", StandardPythonParameterType([1, 2]))
def run(num, nums, color="red"):
    return [num, nums, color]
""")
    assert score(server, {"num": 1, "nums": [2]}) == [1, [2], "red"]


def test_arrays_and_tables_are_made_of_the_body(start: Start) -> None:
    server = start(HEAD + """
@input_schema("array", NumpyParameterType(np.array([[1, 2]])))
@input_schema("table", PandasParameterType(pd.DataFrame({"x": [1]})))
def run(array, table):
    return {"sum": array.sum(), "x": table["x"]}
""")
    found = score(server, {"array": [[1, 2], [3, 4]], "table": [{"x": 5}, {"x": 6}]})
    assert found == {"sum": 10, "x": [5, 6]}


def test_both_decorators_at_once_are_refused(start: Start) -> None:
    server = start(HEAD + """
@rawhttp
@input_schema("num", StandardPythonParameterType(1))
def run(num):
    return num
""")
    assert "both @rawhttp and @input_schema" in server.state()["error"]["message"]


def test_a_schema_that_swagger_2_cannot_say_is_told_in_3_1_alone(start: Start) -> None:
    server = start(HEAD + """
@input_schema("mixed", StandardPythonParameterType([1, "a"]))
def run(mixed):
    return mixed
""")
    url = f"{server.url}/swagger.json"
    assert httpx.get(url, params={"version": "3.1"}).status_code == 200
    found = httpx.get(url)
    assert found.status_code == 404
    assert "is not supported for the scoring script" in found.json()["message"]
