"""What `run()` returned, as the bytes that go out.

Azure's rule: a response object as it is, anything else as JSON, a text too. Values of numpy and
pandas become the JSON that their `tolist` and records are; Azure's server refuses those.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import date, datetime
from typing import Any

from inferay.engine.scoring.tracebacks import describe_exception
from inferay.serve.server.http import JSON, Answer, Headers, error_answer

_RUN_FAILED = b"x-ms-run-function-failed"

#: What a server says of its connection, never a script.
_HOP_BY_HOP = frozenset((
    b"connection", b"content-length", b"keep-alive", b"proxy-authenticate", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
))

#: Of an object's keys, what JSON takes.
_KEYS = (str, int, float, bool, type(None))

#: Statuses whose answers end with their headers: what follows is read as the next answer.
WITHOUT_BODY = frozenset((204, 304))

#: Calls a blocking function without holding up the event loop.
InThread = Callable[[Callable[[], Any]], Any]


def answer_of(result: Any, in_thread: InThread) -> Answer:
    """Return the answer that a result of `run()` is."""
    if isinstance(result, Answer):   # of a model that speaks a protocol of its own
        return result
    if is_response(result):
        return _from_response(result, in_thread)
    try:
        return Answer(200, _json_of(result).encode(), JSON)
    except RecursionError:
        return error_answer(
            500, "run() returned a value that is nested too deeply for JSON", has_failed=True
        )
    except (TypeError, ValueError) as error:   # ValueError: it contains itself
        said = f"run() returned a value that JSON cannot hold: {describe_exception(error)}"
        return error_answer(500, said, has_failed=True)


def is_response(result: Any) -> bool:
    """Return whether it is a response of werkzeug's, as AMLResponse and Flask's are."""
    module = sys.modules.get("werkzeug.wrappers")
    return module is not None and isinstance(result, module.Response)


def _from_response(response: Any, in_thread: InThread) -> Answer:
    status = response.status_code
    if not 200 <= status <= 599:
        said = f"run() returned a response with status {status}; expected 200 to 599"
        return error_answer(500, said, has_failed=True)
    headers: Headers = []
    kind = None
    for name, value in response.headers.items():
        raw_name, raw_value = name.lower().encode("latin-1"), value.encode("latin-1", "replace")
        if raw_name == b"content-type":
            kind = raw_value
        elif raw_name not in _HOP_BY_HOP and raw_name != _RUN_FAILED:
            headers.append((raw_name, raw_value))
    has_failed = status >= 500 or response.headers.get(_RUN_FAILED.decode()) == "True"
    if status in WITHOUT_BODY:
        return Answer(status, b"", None, headers, has_failed)
    body = _stream(response, in_thread) if response.is_streamed else response.get_data()
    return Answer(status, body, kind, headers, has_failed)


async def _stream(response: Any, in_thread: InThread) -> AsyncGenerator[bytes, None]:
    """Give the pieces as the script makes them, each in its thread."""
    pieces: Iterator[bytes] = iter(response.iter_encoded())
    try:
        while (piece := await in_thread(lambda: next(pieces, None))) is not None:
            yield piece
    finally:
        await in_thread(response.close)


def _json_of(result: Any) -> str:
    try:
        return json.dumps(result, default=_jsonable)
    except TypeError:   # perhaps for a key: `default` is asked about values only
        return json.dumps(_with_plain_keys(result), default=_jsonable)


def _with_plain_keys(value: Any) -> Any:
    """Return a value whose objects have keys that JSON takes: `model.classes_` holds numpy's."""
    if isinstance(value, dict):
        return {
            key if isinstance(key, _KEYS) else _jsonable(key): _with_plain_keys(inner)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_with_plain_keys(inner) for inner in value]
    return value


def _jsonable(value: Any) -> Any:
    """Return a value that JSON holds for one of numpy's, pandas' or datetime's."""
    if isinstance(value, (date, datetime)):   # pandas' Timestamp too
        return value.isoformat()
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return value.to_dict(orient="records")
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return value.tolist()
    if pandas is not None and isinstance(value, (pandas.Series, pandas.Index)):
        return value.tolist()
    if pandas is not None and (value is pandas.NA or value is pandas.NaT):
        return None
    raise TypeError(
        f"a value of type {type(value).__module__}.{type(value).__qualname__} (return what "
        "json.dumps takes, an array, a DataFrame or an AMLResponse)"
    )
