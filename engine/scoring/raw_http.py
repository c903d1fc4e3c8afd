"""What scoring scripts import for raw HTTP: `@rawhttp`, `AMLRequest` and `AMLResponse`.

Azure's modules `azureml.contrib.services.aml_request` and `.aml_response` have these names;
`aliases` puts them there. Theirs stand on Flask's request and response; ours on werkzeug's, which
Flask's are, so scripts find the methods that they know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from werkzeug.wrappers import Request, Response

RUN_FAILED = "x-ms-run-function-failed"

#: Set on `run` by `rawhttp`; what wraps it with `functools.wraps` passes it on.
_MARK = "__inferay_rawhttp__"

F = TypeVar("F", bound=Callable[..., Any])


def rawhttp(run: F) -> F:
    """Ask for the request itself as the argument of `run()`; a decorator."""
    setattr(run, _MARK, True)
    return run


def wants_raw_http(run: Callable[..., Any]) -> bool:
    """Return whether `run` is decorated with `rawhttp`."""
    return getattr(run, _MARK, False) is True


class AMLRequest(Request):
    """A request, as `run()` gets it under `@rawhttp`; werkzeug's, whose body is read already."""


class AMLResponse(Response):
    """A response that goes out as it is.

    Args:
        message: The body: text or bytes, or anything that JSON holds with `json_str`; None gives
            an empty JSON object.
        status_code: Of the reply.
        response_headers: Added to the reply; a value with commas becomes several headers.
        json_str: Encode the message as JSON.
        run_function_failed: What the header `x-ms-run-function-failed` says.
    """

    def __init__(
        self, message: Any, status_code: int, response_headers: Mapping[str, str] | None = None,
        json_str: bool = False, run_function_failed: bool = False,
    ) -> None:
        given = response_headers or {}
        if message is None or json_str:
            body = json.dumps({} if message is None else message)
            super().__init__(body, status=status_code, mimetype="application/json")
        else:
            super().__init__(message, status=status_code)
            if any(name.lower() == "content-type" for name in given):
                del self.headers["Content-Type"]
        has_type = "Content-Type" in self.headers
        for name, value in given.items():
            if name.lower() == RUN_FAILED or (has_type and name.lower() == "content-type"):
                continue   # these are not the script's to say, as with Azure
            for part in value.split(","):
                self.headers.add(name, part.strip())
        self.headers[RUN_FAILED] = str(run_function_failed)
