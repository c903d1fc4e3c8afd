"""A request to the inference server and its answer, as plain values."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

#: Names and values, as ASGI has them: names in lower case.
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"


@dataclass(frozen=True)
class Request:
    """A request whose body is read.

    Attributes:
        query: What stands after the `?`, as it came.
        root: The part of the path above the server's own routes.
    """

    method: str
    path: str
    query: bytes
    headers: Headers
    body: bytes
    scheme: str = "http"
    root: str = ""

    def header(self, name: bytes) -> str | None:
        """Return the value of a header, given in lower case; the first one if there are more."""
        for found, value in self.headers:
            if found == name:
                return value.decode("latin-1")
        return None


@dataclass
class Answer:
    """What goes out.

    Attributes:
        body: All of it, or what comes piece by piece.
        has_failed: Whether `run()` failed: what `x-ms-run-function-failed` says; None leaves the
            header as it is in `headers`, or out.
        run_s: How long `run()` took; None if it was not called.
        trailers: Headers that follow the body; None: there are none.
    """

    status: int
    body: bytes | AsyncGenerator[bytes, None]
    content_type: bytes | None = JSON
    headers: Headers = field(default_factory=list)
    has_failed: bool | None = None
    run_s: float | None = None
    trailers: Headers | None = None


class Refused(Exception):
    """Raised when a request is answered without a result of `run()`.

    Attributes:
        status: 400 to 503.
        message: For the client.
    """

    def __init__(self, status: int, message: str, *, headers: Headers | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or []


def error_answer(
    status: int, message: str, *, has_failed: bool = False, key: str = "message", **rest: Any
) -> Answer:
    """Return an answer with the container's body of an error: `{"message": …}`."""
    body = json.dumps({key: message}).encode()
    return Answer(status, body, has_failed=has_failed, **rest)
