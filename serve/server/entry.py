"""How the user's `run()` is called: told from its signature and decorators, once.

Source: Azure's inference server (azureml-inference-server-http 1.5). An undecorated `run(data)`
takes the body as text, `@input_schema` names its arguments in a JSON object, `@rawhttp` takes the
request itself.
"""

from __future__ import annotations

import inspect
import io
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import parse_qsl

from inferay.errors import UserCodeError
from inferay.serve.server.http import Answer, Refused, Request
from inferay.serve.server.threads import Threads

#: The argument of `run()` that takes the request's headers.
REQUEST_HEADERS = "request_headers"

#: Where a script's requests go.
SCORE = "/score"
SCORE_METHODS = ("GET", "POST", "OPTIONS")

#: What a browser is told that asks which methods there are.
OPTIONS = Answer(200, b"", b"text/plain; charset=utf-8", has_failed=False)

_PLAIN = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

#: Of a content type, besides `…+json`.
_JSON_TYPE = "application/json"


class Handler(Protocol):
    """What answers a request: the user's `run`, or a model that needs none."""

    @property
    def kind(self) -> Literal["text", "schema", "raw"]:
        """What `run` is given; `raw` for the request itself."""

    @property
    def is_async(self) -> bool:
        """Whether `run` is awaited."""

    @property
    def error_key(self) -> str:
        """What the body of an error calls the message."""

    @property
    def health_paths(self) -> frozenset[str]:
        """Paths besides `/` that ask whether the server is well."""

    def threads(self, at_once: int) -> Threads:
        """Return what calls `run`, so many times at once at most."""

    @property
    def run(self) -> Callable[..., Any]:
        """What is called with the arguments.

        Raises:
            Refused: They are not what it can take.
        """

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Return the methods of a path that it answers, or None if that is not its own."""

    def told(self, request: Request) -> Answer | None:
        """Return the answer to what needs no call of `run`, or None."""

    def arguments(self, request: Request) -> dict[str, Any]:
        """Return what `run` is called with; see `Entry.arguments`."""

    def release(self, arguments: dict[str, Any]) -> None:
        """Close what the arguments of an ended call hold."""


@dataclass(frozen=True)
class Entry:
    """The user's `run` and what it takes.

    Attributes:
        kind: What its first argument is: `text`, the request (`raw`), or what the JSON object of
            the body has under its name (`schema`, for every argument).
        parameters: Its arguments but `request_headers`.
    """

    run: Callable[..., Any]
    kind: Literal["text", "schema", "raw"]
    parameters: tuple[inspect.Parameter, ...]
    takes_headers: bool
    is_async: bool
    error_key: ClassVar[str] = "message"
    health_paths: ClassVar[frozenset[str]] = frozenset()

    def threads(self, at_once: int) -> Threads:
        """Return a thread for each call."""
        return Threads(at_once)

    def methods(self, path: str) -> tuple[str, ...] | None:
        """Return the methods of `/score`."""
        return SCORE_METHODS if path == SCORE else None

    def told(self, request: Request) -> Answer | None:
        """Return nothing but what a browser asks ahead."""
        return OPTIONS if request.method == "OPTIONS" and self.kind != "raw" else None

    def arguments(self, request: Request) -> dict[str, Any]:
        """Return what `run()` is called with.

        Raises:
            Refused: The request does not hold it: 400, 405 or 415.
        """
        found = self._inputs(request)
        if self.takes_headers:
            found[REQUEST_HEADERS] = _header_map(request)
        return found

    def release(self, arguments: dict[str, Any]) -> None:
        """Close what the arguments of an ended call hold: the files of a raw request's form."""
        if self.kind == "raw":
            arguments[self.parameters[0].name].close()

    def _inputs(self, request: Request) -> dict[str, Any]:
        first = self.parameters[0].name
        if self.kind == "raw":
            return {first: raw_request(request)}
        if request.method == "GET":
            values = _query_values(request)
            return {first: json.dumps(values)} if self.kind == "text" else self._named(values)
        if request.method != "POST":
            raise Refused(405, "Method not allowed")
        if self.kind == "schema":
            return self._named(_json_object(request))
        try:
            return {first: request.body.decode()}
        except UnicodeDecodeError as error:
            raise Refused(400, f"Input cannot be decoded as UTF-8: {error}") from None

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for parameter in self.parameters:
            value = values.get(parameter.name, parameter.default)
            if value is inspect.Parameter.empty:
                raise Refused(400, f"A value is not provided for the '{parameter.name}' parameter.")
            found[parameter.name] = value
        return found


def entry_of(module: ModuleType) -> Entry:
    """Return how the module's `run()` is called.

    A module that Azure's SDK generated has the user's own as `driver_module`: its `run()` is
    called, and the outer `init()`.

    Raises:
        UserCodeError: `run()` takes what no request can give.
    """
    inner = getattr(module, "driver_module", None)
    run = inner.run if isinstance(inner, ModuleType) and hasattr(inner, "run") else module.run
    try:
        parameters = tuple(inspect.signature(run).parameters.values())
    except ValueError:   # a builtin
        raise _refusal("run() has no signature that can be read") from None
    if any(parameter.kind not in _PLAIN for parameter in parameters):
        raise _refusal("run() cannot accept positional-only arguments, *args, or **kwargs")
    inputs = tuple(one for one in parameters if one.name != REQUEST_HEADERS)
    takes_headers = len(inputs) < len(parameters)
    if not inputs:
        other = f" other than '{REQUEST_HEADERS}'" if takes_headers else " for its input"
        raise _refusal(f"run() has to accept an argument{other}")
    is_raw, has_schema = _is_raw(run), _has_schema(run)
    if is_raw and has_schema:
        raise _refusal("run() cannot be decorated with both @rawhttp and @input_schema")
    kind: Literal["text", "schema", "raw"] = "raw" if is_raw else "schema" if has_schema else "text"
    is_async = inspect.iscoroutinefunction(inspect.unwrap(run))
    return Entry(run, kind, inputs, takes_headers, is_async)


def check_online(module: ModuleType, script: str) -> None:
    """Refuse a module without the `init()` and `run()` that an online deployment calls.

    Raises:
        UserCodeError: What it lacks.
    """
    for name, code in (("init", "NoInit"), ("run", "NoRun")):
        if not callable(getattr(module, name, None)):
            raise UserCodeError(f"{script} defines no {name}()", code=code)
    if inspect.iscoroutinefunction(module.init):
        raise UserCodeError(f"init() of {script} has to be a plain function", code="NoInit")
    try:
        inspect.signature(module.init).bind()
    except TypeError:
        raise UserCodeError(
            f"{script} has to define init() without arguments, but it defines "
            f"init{inspect.signature(module.init)}",
            code="NoInit",
        ) from None
    except ValueError:   # a builtin without a signature: calling it will tell
        pass
    entry_of(module)


def raw_request(request: Request) -> Any:
    """Return the request as werkzeug's, with the methods that Flask's has too."""
    from inferay.engine.scoring.raw_http import AMLRequest

    host, _, port = (request.header(b"host") or "localhost").partition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method, "SCRIPT_NAME": request.root,
        "PATH_INFO": request.path.encode().decode("latin-1"),
        "QUERY_STRING": request.query.decode("latin-1"), "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": host, "SERVER_PORT": port or "80", "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BytesIO(request.body), "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0), "wsgi.multithread": True, "wsgi.multiprocess": False,
        "wsgi.run_once": False, "wsgi.input_terminated": True,
    }
    for name, value in _header_map(request).items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    environ["CONTENT_LENGTH"] = str(len(request.body))   # also of a body that came in chunks
    return AMLRequest(environ)


def _is_raw(run: Callable[..., Any]) -> bool:
    # A script that asks for raw HTTP has imported the module, so werkzeug need not be before.
    module = sys.modules.get("inferay.engine.scoring.raw_http")
    return module is not None and bool(module.wants_raw_http(run))


def _has_schema(run: Callable[..., Any]) -> bool:
    """Return whether `inference_schema` decorates `run`: a package of the user's environment."""
    module = sys.modules.get("inference_schema.schema_util")
    return module is not None and bool(module.is_schema_decorated(run))


def _refusal(said: str) -> UserCodeError:
    said = f"{said}; expected run(data), or arguments that @input_schema names"
    return UserCodeError(said, code="NoRun")


def _json_object(request: Request) -> dict[str, Any]:
    kind = (request.header(b"content-type") or "").partition(";")[0].strip().lower()
    if kind != _JSON_TYPE and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refused(415, "Expects Content-Type to be application/json")
    if not request.body:
        raise Refused(400, "POST body is empty. Expecting a JSON dictionary.")
    try:
        found = json.loads(request.body)
    except ValueError as error:   # UnicodeDecodeError too
        raise Refused(400, f"POST body could not be decoded as JSON: {error}") from None
    except RecursionError:
        raise Refused(400, "POST body could not be decoded as JSON: nested too deeply") from None
    if not isinstance(found, dict):
        raise Refused(400, "POST body should be a JSON dictionary.")
    return found


def _query_values(request: Request) -> dict[str, Any]:
    """Return `a=1&b=x&b=[2]` as `{"a": 1, "b": ["x", [2]]}`."""
    values: dict[str, list[Any]] = {}
    for name, text in _pairs(request.query):
        values.setdefault(name, []).append(_parsed(text))
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def _pairs(query: bytes) -> Iterable[tuple[str, str]]:
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="replace")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _header_map(request: Request) -> dict[str, str]:
    """Return the headers with names as `Content-Type`; values of one name joined by commas."""
    found: dict[str, str] = {}
    for name, value in request.headers:
        title, text = name.decode("latin-1").title(), value.decode("latin-1")
        found[title] = f"{found[title]},{text}" if title in found else text
    return found
