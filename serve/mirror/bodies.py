"""The body of a request or an answer as it is kept: whole up to a bound, else only its digest."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

#: Of an answer: what most models return, many times over.
ANSWER_KEPT_BYTES = 64 << 10

#: Of a request, which only serves to look at the worst pairs.
REQUEST_KEPT_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Body:
    """What is kept of a body.

    Attributes:
        content: Text if it is UTF-8; None beyond the bound.
        sha256: In hex; None within the bound.
    """

    content: str | bytes | None
    sha256: str | None
    size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes, as JSON can carry it."""
        if isinstance(self.content, str):
            return {"text": self.content}
        if self.content is not None:
            return {"base64": base64.b64encode(self.content).decode()}
        return {"sha256": self.sha256, "bytes": self.size_bytes}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Body:
        """Return the body that `to_dict` wrote."""
        if "text" in values:
            text = values["text"]
            return cls(text, None, len(text))
        if "base64" in values:
            data = base64.b64decode(values["base64"])
            return cls(data, None, len(data))
        return cls(None, values["sha256"], values["bytes"])


def body_of(data: bytes, kept_bytes: int) -> Body:
    """Return what is kept of a body that is there."""
    if len(data) > kept_bytes:
        return Body(None, hashlib.sha256(data).hexdigest(), len(data))
    try:
        return Body(data.decode(), None, len(data))
    except UnicodeDecodeError:
        return Body(data, None, len(data))


class Capture:
    """A body that comes piece by piece: never more than the bound is held."""

    def __init__(self, kept_bytes: int) -> None:
        self._kept_bytes = kept_bytes
        self._pieces: list[bytes] = []
        self._hash: hashlib._Hash | None = None
        self._size_bytes = 0

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        self._size_bytes += len(piece)
        if self._hash is None and self._size_bytes > self._kept_bytes:
            self._hash = hashlib.sha256(b"".join(self._pieces))
            self._pieces.clear()
        if self._hash is None:
            self._pieces.append(piece)
        else:
            self._hash.update(piece)

    def body(self) -> Body:
        """Return what is kept of all of it."""
        if self._hash is not None:
            return Body(None, self._hash.hexdigest(), self._size_bytes)
        return body_of(b"".join(self._pieces), self._kept_bytes)
