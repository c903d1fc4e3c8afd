"""Azure's contract of the inference server, over HTTP: what its own scenario tests assert."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any

import httpx
import pytest

from inferay.errors import UserCodeError
from tests.serve.server.conftest import Serve

ECHO = "def run(data):\n    return data\n"
RAISES_IF_TOLD = """
    def run(data):
        if data == "raise":
            raise RuntimeError("no luck")
        return data
"""


def test_the_root_says_healthy(serve: Serve) -> None:
    found = serve(ECHO).get("/")
    assert (found.status_code, found.text) == (200, "Healthy")


# -- identifiers


@pytest.mark.parametrize("body", ["fine", "raise"])
def test_a_request_id_is_made_and_told_twice(serve: Serve, body: str) -> None:
    headers = serve(RAISES_IF_TOLD).post("/score", content=body).headers
    assert uuid.UUID(headers["x-request-id"])
    assert headers["x-ms-request-id"] == headers["x-request-id"]
    assert "x-ms-client-request-id" not in headers


@pytest.mark.parametrize("body", ["fine", "raise"])
def test_a_given_request_id_comes_back(serve: Serve, body: str) -> None:
    found = serve(RAISES_IF_TOLD).post("/score", content=body, headers={"x-request-id": "mine"})
    assert found.headers["x-request-id"] == found.headers["x-ms-request-id"] == "mine"


@pytest.mark.parametrize(
    ("given", "old", "client"),
    [
        ({"x-ms-request-id": "A"}, "A", "A"),
        ({"x-ms-client-request-id": "A"}, "A", "A"),
        ({"x-ms-request-id": "A", "x-ms-client-request-id": "B"}, "A", "B"),
    ],
)
def test_the_clients_request_id_comes_back_under_both_names(
    serve: Serve, given: dict[str, str], old: str, client: str
) -> None:
    headers = serve(ECHO).get("/score", headers=given).headers
    assert (headers["x-ms-request-id"], headers["x-ms-client-request-id"]) == (old, client)


def test_a_request_id_may_have_a_hundred_characters(serve: Serve) -> None:
    client = serve(ECHO)
    assert client.get("/score", headers={"x-request-id": "A" * 100}).status_code == 200
    found = client.get("/score", headers={"x-request-id": "A" * 101})
    assert found.status_code == 431
    assert found.json() == {"message": "x-request-id must not exceed 100 characters"}
    for name in ("x-request-id", "x-ms-request-id", "x-ms-client-request-id"):
        assert name not in found.headers


@pytest.mark.parametrize("name", ["x-ms-request-id", "x-ms-client-request-id"])
def test_a_clients_request_id_may_have_a_hundred_characters(serve: Serve, name: str) -> None:
    client = serve(ECHO)
    assert client.get("/score", headers={name: "A" * 100}).status_code == 200
    found = client.get("/score", headers={name: "A" * 101, "x-request-id": "mine"})
    assert found.status_code == 431
    said = "x-ms-request-id and x-ms-client-request-id must not exceed 100 characters"
    assert found.json() == {"message": said}
    assert found.headers["x-request-id"] == "mine"
    assert "x-ms-request-id" not in found.headers


def test_a_trace_id_comes_back(serve: Serve) -> None:
    assert serve(ECHO).get("/score", headers={"TraceId": "t"}).headers["TraceId"] == "t"


def test_a_script_cannot_change_the_request_id(serve: Serve) -> None:
    client = serve("""
        from azureml.contrib.services.aml_response import AMLResponse

        def run(data):
            response = AMLResponse("", 200)
            response.headers["x-request-id"] = "other"
            return response
    """)
    found = client.post("/score", headers={"x-request-id": "mine"})
    assert (found.status_code, found.headers.get_list("x-request-id")) == (200, ["mine"])


# -- results


def test_a_result_goes_out_as_json(serve: Serve) -> None:
    found = serve("def run(data):\n    return {'a': 1}\n").get("/score")
    assert (found.status_code, found.json()) == (200, {"a": 1})
    assert found.headers["content-type"] == "application/json"
    assert found.headers["x-ms-run-function-failed"] == "False"
    assert float(found.headers["x-ms-run-fn-exec-ms"]) >= 0
    assert found.headers["x-ms-server-version"].startswith("inferay/")


def test_a_text_is_encoded_once_more(serve: Serve) -> None:
    found = serve("import json\n\ndef run(data):\n    return json.dumps([1])\n").get("/score")
    assert found.text == '"[1]"'


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("numpy.arange(3)", [0, 1, 2]),
        ("{'a': numpy.float32(0.5), 'b': numpy.int64(3)}", {"a": 0.5, "b": 3}),
        ("pandas.DataFrame({'x': [1, 2], 'y': ['a', 'b']})",
         [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]),
        ("pandas.Series([1.5, 2.5])", [1.5, 2.5]),
        ("[pandas.Timestamp('2026-01-02')]", ["2026-01-02T00:00:00"]),
        ("[{label: 0.5 for label in numpy.array([3, 7])}]", [{"3": 0.5, "7": 0.5}]),
    ],
)  # fmt: skip
def test_arrays_and_tables_go_out_as_json(serve: Serve, code: str, expected: object) -> None:
    found = serve(f"import numpy, pandas\n\ndef run(data):\n    return {code}\n").get("/score")
    assert (found.status_code, found.json()) == (200, expected)


@pytest.mark.parametrize(
    ("code", "named"),
    [("object()", "builtins.object"), ("{1, 2}", "builtins.set"), ("[loop]", "Circular"),
     ("{(1, 2): 3}", "builtins.tuple")],
)
def test_a_result_that_json_cannot_hold_is_an_error_that_names_it(
    serve: Serve, code: str, named: str
) -> None:
    found = serve(
        f"loop = []\nloop.append(loop)\n\ndef run(data):\n    return {code}\n"
    ).get("/score")
    assert found.status_code == 500
    assert named in found.json()["message"]
    assert found.headers["x-ms-run-function-failed"] == "True"


def respond(code: str) -> str:
    return (
        "from azureml.contrib.services.aml_response import AMLResponse\n\n"
        f"def run(data):\n    return {code}\n"
    )


def test_an_empty_response_is_an_empty_object(serve: Serve) -> None:
    found = serve(respond("AMLResponse(None, 333)")).get("/score")
    assert (found.status_code, found.json()) == (333, {})
    assert found.headers["content-type"] == "application/json"
    assert found.headers["x-ms-run-function-failed"] == "False"


def test_a_response_goes_out_as_it_is(serve: Serve) -> None:
    found = serve(respond("AMLResponse('test', 444)")).get("/score")
    assert (found.status_code, found.content) == (444, b"test")
    assert found.headers["content-type"] != "application/json"


def test_a_response_may_be_encoded_as_json(serve: Serve) -> None:
    found = serve(respond("AMLResponse('test', 555, json_str=True)")).get("/score")
    assert (found.status_code, found.content) == (555, b'"test"')
    assert found.headers["content-type"] == "application/json"
    assert found.headers["x-ms-run-function-failed"] == "True"


def test_a_responses_headers_are_split_at_commas_and_two_are_not_its_to_say(serve: Serve) -> None:
    found = serve(respond(
        "AMLResponse(None, 555, {'a': 'A', 'b': 'A, B, C', 'content-type': 'A', "
        "'x-ms-run-function-failed': 'Z'}, run_function_failed=True)"
    )).get("/score")
    assert found.headers["a"] == "A"
    assert found.headers.get_list("b") == ["A", "B", "C"]
    assert found.headers.get_list("content-type") == ["application/json"]
    assert found.headers.get_list("x-ms-run-function-failed") == ["True"]


def test_a_response_has_the_content_type_that_it_is_given(serve: Serve) -> None:
    answer = respond("AMLResponse(b'\\x00', 200, {'Content-Type': 'image/png'})")
    found = serve(answer).get("/score")
    assert (found.headers.get_list("content-type"), found.content) == (["image/png"], b"\x00")


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_that_may_have_no_body_has_none(serve: Serve, status: int) -> None:
    client = serve(respond(f"AMLResponse(None, {status}) if data else 'next'"))
    for _ in range(2):   # nothing of it is left on the connection
        found = client.post("/score", content="x")
        assert (found.status_code, found.content) == (status, b"")
        assert "content-length" not in found.headers
        assert client.post("/score", content="").json() == "next"


def test_a_status_that_http_has_not_is_an_error_that_names_it(serve: Serve) -> None:
    found = serve(respond("AMLResponse('', 600)")).get("/score")
    assert found.status_code == 500
    said = "run() returned a response with status 600; expected 200 to 599"
    assert found.json() == {"message": said}
    assert found.headers["x-ms-run-function-failed"] == "True"


def test_a_response_may_be_made_piece_by_piece(serve: Serve) -> None:
    client = serve("""
        from azureml.contrib.services.aml_response import AMLResponse

        def pieces():
            for number in range(3):
                yield f"{number};"

        def run(data):
            return AMLResponse(pieces(), 200)
    """)
    for _ in range(3):   # its place is given back
        assert client.get("/score").text == "0;1;2;"


def test_what_run_raises_is_in_the_log_and_not_in_the_answer(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "inferay.server"):
        found = serve(RAISES_IF_TOLD).post("/score", content="raise")
    assert found.status_code == 500
    said = "An unexpected error occurred in scoring script. Check the logs for more info."
    assert found.json() == {"message": said}
    assert found.headers["x-ms-run-function-failed"] == "True"
    assert 'File "score.py", line' in caplog.text
    assert "RuntimeError: no luck" in caplog.text
    assert "inferay" not in caplog.text.partition("Traceback")[2]


def test_what_is_raised_while_an_answer_is_sent_is_the_users_and_cuts_it_short(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve("""
        from azureml.contrib.services.aml_response import AMLResponse

        def pieces():
            yield "first"
            raise RuntimeError("no luck")

        def run(data):
            return AMLResponse(pieces(), 200) if data else "next"
    """)
    with caplog.at_level(logging.ERROR, "inferay.server"):
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/score", content="x")
        assert client.post("/score", content="").json() == "next"
    [record] = [one for one in caplog.records if one.name == "inferay.server"]
    assert 'File "score.py", line' in record.getMessage()
    assert "RuntimeError: no luck" in record.getMessage()
    assert "Exception in ASGI application" not in caplog.text


@pytest.mark.parametrize("raised", ["SystemExit(3)", "KeyboardInterrupt()", "MemoryError()"])
def test_whatever_run_raises_the_server_goes_on(serve: Serve, raised: str) -> None:
    client = serve(f"def run(data):\n    if data:\n        raise {raised}\n    return 1\n")
    assert client.post("/score", content="x").status_code == 500
    assert client.post("/score", content="").json() == 1


# -- undecorated run()


def test_a_query_is_json(serve: Serve) -> None:
    inputs: dict[str, Any] = {
        "a": 1, "b": "x", "c": 1.2, "d": [1, 2, 3], "e": "null", "f": json.dumps({"X": "Y"}),
    }
    found = serve(ECHO).get("/score", params=inputs)
    assert json.loads(found.json()) == {**inputs, "e": None, "f": {"X": "Y"}}


def test_a_body_is_text(serve: Serve) -> None:
    found = serve(ECHO).post("/score", content='{"a": "ü"}'.encode())
    assert found.json() == '{"a": "ü"}'


def test_a_body_that_is_no_utf8_is_refused(serve: Serve) -> None:
    found = serve(ECHO).post("/score", content=b"\xff")
    assert found.status_code == 400
    said = "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
    assert found.json() == {"message": f"Input cannot be decoded as UTF-8: {said}"}
    assert found.headers["x-ms-run-function-failed"] == "False"
    assert "x-ms-run-fn-exec-ms" not in found.headers


def test_options_are_answered_without_the_script(serve: Serve) -> None:
    found = serve("def run(data):\n    raise RuntimeError\n").options("/score")
    assert (found.status_code, found.content) == (200, b"")


def test_further_arguments_may_have_defaults(serve: Serve) -> None:
    assert serve("def run(data, color='red'):\n    return color\n").get("/score").json() == "red"


def test_run_may_ask_for_the_headers(serve: Serve) -> None:
    found = serve("def run(data, request_headers):\n    return [data, request_headers]\n").post(
        "/score", content="x", headers={"test-header": "value"}
    ).json()
    assert found[0] == "x"
    assert found[1]["Test-Header"] == "value"


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("*args", "positional-only"), ("**kwargs", "positional-only"),
        ("data, /", "positional-only"),
        ("", "for its input"), ("request_headers", "other than 'request_headers'"),
    ],
)
def test_a_run_that_no_request_fits_is_refused_when_it_is_loaded(
    serve: Serve, signature: str, said: str
) -> None:
    with pytest.raises(UserCodeError, match=said) as caught:
        serve(f"def run({signature}):\n    return 1\n")
    assert caught.value.code == "NoRun"


def test_a_driver_module_is_looked_through(serve: Serve) -> None:
    client = serve(
        """
        import inner as driver_module

        def init():
            driver_module.STATE.append("init")

        def run(data):
            raise RuntimeError("the outer run() is not called")
        """,
        files={"inner.py": "STATE = []\n\ndef run(data):\n    return STATE\n"},
    )
    assert client.get("/score").json() == ["init"]


# -- @rawhttp

RAW = """
    from azureml.contrib.services.aml_request import AMLRequest, rawhttp

    @rawhttp
    def run(request):
        assert isinstance(request, AMLRequest)
        return {
            "method": request.method, "query": request.query_string.decode(),
            "data": request.get_data(as_text=True), "args": request.args.to_dict(),
            "kind": request.headers.get("Content-Type"), "path": request.path,
            "files": {name: file.read().decode() for name, file in request.files.items()},
        }
"""


def test_raw_http_gets_the_request(serve: Serve) -> None:
    client = serve(RAW)
    found = client.get("/score", params={"a": 1, "b": "x"}).json()
    assert (found["method"], found["query"], found["path"]) == ("GET", "a=1&b=x", "/score")
    assert found["args"] == {"a": "1", "b": "x"}
    found = client.post("/score", json=[1, 2, 3]).json()
    assert (found["data"], found["kind"]) == ("[1,2,3]", "application/json")
    assert client.options("/score").json()["method"] == "OPTIONS"


def test_raw_http_gets_a_form_with_files(serve: Serve) -> None:
    client = serve(RAW.replace('"data": request.get_data(as_text=True), ', ""))
    found = client.post("/score", files={"image": ("i.png", b"pixels")}).json()
    assert found["files"] == {"image": "pixels"}


# -- routes


def test_another_path_is_not_found(serve: Serve) -> None:
    found = serve(ECHO).get("/else")
    assert found.status_code == 404
    assert found.json()["message"].startswith("The requested URL was not found on the server.")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("DELETE", "/", "GET, HEAD"), ("PUT", "/score", "GET, POST, OPTIONS")],
)
def test_another_method_is_not_allowed(
    serve: Serve, method: str, path: str, allowed: str
) -> None:
    found = serve(ECHO).request(method, path)
    assert (found.status_code, found.headers["allow"]) == (405, allowed)
    assert found.headers["x-ms-run-function-failed"] == "False"
    assert found.json() == {"message": "The method is not allowed for the requested URL."}


def test_async_run_is_awaited(serve: Serve) -> None:
    client = serve("""
        import asyncio

        async def run(data):
            await asyncio.sleep(0.001)
            return data.upper()
    """)
    assert client.post("/score", content="x").json() == "X"


def test_an_async_run_that_cancels_itself_is_a_failure_of_its_own(serve: Serve) -> None:
    client = serve("""
        import asyncio

        async def run(data):
            raise asyncio.CancelledError("mine")
    """)
    for _ in range(3):   # more than run and wait at once: each gives its place back
        found = client.post("/score", content="x")
        assert found.status_code == 500
        assert found.headers["x-ms-run-function-failed"] == "True"
