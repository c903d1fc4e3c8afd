"""The connection to a control plane: where it is, who asks, and its errors as ours."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from inferay.config import Workspace
from inferay.engine.resources.references import NAME, NAME_RULE
from inferay.engine.resources.wording import shown
from inferay.errors import (
    Conflict,
    InferayError,
    InvalidInput,
    NotAuthorized,
    NotFound,
    Unavailable,
)

#: The control plane answers within milliseconds; an invocation may look through a slow disk.
TIMEOUT_S = 60.0

_ERRORS: dict[int, type[InferayError]] = {
    400: InvalidInput, 401: NotAuthorized, 403: NotAuthorized, 404: NotFound, 405: InvalidInput,
    408: Unavailable, 409: Conflict, 413: InvalidInput, 429: Unavailable, 502: Unavailable,
    503: Unavailable, 504: Unavailable,
}


@dataclass(frozen=True)
class Address:
    """Where a control plane is.

    Attributes:
        url: Its public address.
        token: What to authenticate with.
        ca: File with the CA to trust, or None for the system's.
        is_local: Whether it runs in this machine's workspace, so that paths mean the same there.
    """

    url: str
    token: str
    ca: Path | None
    is_local: bool

    @classmethod
    def find(cls) -> Address:
        """Return the address that `INFERAY_URL` and `INFERAY_TOKEN` give, else the workspace's.

        Raises:
            Unavailable: Nothing runs in the workspace.
            InvalidInput: A URL without a token is given.
        """
        url, token = os.environ.get("INFERAY_URL"), os.environ.get("INFERAY_TOKEN")
        if url:
            if not token:
                raise InvalidInput("INFERAY_URL is set but INFERAY_TOKEN is not; set both")
            ca = os.environ.get("INFERAY_CA")
            return cls(url.rstrip("/"), token, Path(ca) if ca else None, False)
        return cls.of_workspace(Workspace.from_environment())

    @classmethod
    def of_workspace(cls, workspace: Workspace) -> Address:
        """Return the address of what runs in a workspace.

        Raises:
            Unavailable: Nothing does.
        """
        try:
            url = json.loads((workspace.run / "control.json").read_bytes())["url"]
            token = workspace.admin_token.read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            raise Unavailable(
                f"nothing runs in the workspace {workspace.home}; start it with `inferay up`"
            ) from None
        except PermissionError as error:
            raise NotAuthorized(f"cannot read {error.filename}: permission denied") from None
        return cls(url, token, workspace.ca_certificate, True)


#: The longest request that Azure allows, and its wait.
SCORE_S = 200.0


class Http:
    """Requests to a control plane; safe to share between threads.

    Raises:
        InvalidInput: The address is wrong, or its CA cannot be read.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        try:
            trusted = ssl.create_default_context(cafile=str(address.ca) if address.ca else None)
            self._client = httpx.Client(
                base_url=address.url, timeout=TIMEOUT_S, trust_env=False, verify=trusted,
                headers={"Authorization": f"Bearer {address.token}"},
            )
        except OSError as error:   # an SSLError is one
            raise InvalidInput(f"cannot read the CA to trust, {address.ca}: {error}") from None
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise InvalidInput(f"INFERAY_URL or INFERAY_TOKEN is wrong: {error}") from None

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        """GET a JSON object.

        Raises:
            InferayError: The class that the answer's status stands for.
        """
        return self._json(self._send("GET", path, params=params))

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """PUT a JSON object; see `get`."""
        return self._json(self._send("PUT", path, json=body))

    def post(
        self, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """POST a JSON object; see `get`."""
        return self._json(self._send("POST", path, json=body, headers=headers))

    def delete(self, path: str) -> str | None:
        """DELETE; return the id of the operation if it goes on, else None; see `get`."""
        return operation_of(self._send("DELETE", path))

    def put_waited(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        """PUT; return the resource and the id of the operation that goes on, if one does."""
        answer = self._send("PUT", path, json=body)
        return self._json(answer), operation_of(answer)

    def post_waited(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        """POST; as `put_waited`."""
        answer = self._send("POST", path, json=body)
        return self._json(answer), operation_of(answer)

    def score(self, url: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """POST to a scoring URI, with credentials of its own; return the answer as it is.

        Raises:
            Unavailable: Nothing answers there.
        """
        try:
            return self._client.post(url, content=body, headers=headers, timeout=SCORE_S)
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error

    def text(self, path: str, **params: Any) -> bytes:
        """GET the bytes of a log or file; see `get`."""
        return self._send("GET", path, params=params).content

    def lines(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """GET a stream of JSON objects, a line each, as they come; see `get`.

        Raises:
            InferayError: The stream itself carries an error.
        """
        try:
            with self._client.stream("GET", path, params=params) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise error_of(answer)
                for line in answer.iter_lines():
                    if not line:   # says only that it goes on
                        continue
                    found = json.loads(line)
                    if "error" in found:
                        raise Unavailable(found["error"]["message"], code=found["error"]["code"])
                    yield found
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error

    def download(self, path: str, target: Path) -> None:
        """GET a file into a local one, whole or not at all; see `get`."""
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.part")
        try:
            with self._client.stream("GET", path) as answer, open(aside, "wb") as file:
                if answer.status_code != 200:
                    answer.read()
                    raise error_of(answer)
                for chunk in answer.iter_bytes(1 << 20):
                    file.write(chunk)
            os.replace(aside, target)
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error
        finally:
            aside.unlink(missing_ok=True)

    def upload(
        self, path: str, chunks: Iterable[bytes], headers: dict[str, str] | None = None
    ) -> None:
        """PUT bytes, such as a local file's; see `get`."""
        self._send("PUT", path, content=chunks, headers=headers)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error
        if answer.status_code >= 300:   # a control plane redirects nobody
            raise error_of(answer)
        return answer

    def _unavailable(self, error: httpx.HTTPError) -> Unavailable:
        hint = "start it with `inferay up`" if self.address.is_local else "is INFERAY_URL right?"
        reason = " ".join(str(error).split()) or type(error).__name__
        return Unavailable(
            f"the control plane at {self.address.url} does not answer ({reason}); {hint}"
        )

    @staticmethod
    def _json(answer: httpx.Response) -> dict[str, Any]:
        try:
            found: dict[str, Any] = answer.json()
        except ValueError:
            raise Unavailable(
                f"{answer.request.url} did not answer with JSON; is it an inferay control plane?"
            ) from None
        return found


def segment(name: str) -> str:
    """Return a name or version as it stands in an address, which is as it is.

    Raises:
        InvalidInput: It is none: it would lead elsewhere.
    """
    if not NAME.fullmatch(name):
        raise InvalidInput(f"{shown(name)} is no name: expected {NAME_RULE}", target="name")
    return name


def error_of(answer: httpx.Response) -> InferayError:
    """Return the error that an answer carries, of the class that its status stands for."""
    is_redirect = answer.status_code < 400
    cls = _ERRORS.get(answer.status_code, Unavailable if is_redirect else InferayError)
    try:
        error = answer.json()["error"]
        details = "\n".join(one["message"] for one in error.get("details") or []) or None
        return cls(
            error["message"], code=error["code"], target=error.get("target"), details=details
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        where = f"{answer.request.method} {answer.request.url}"
        return cls(f"{where} was answered with status {answer.status_code}")


def operation_of(answer: httpx.Response) -> str | None:
    """Return the id of the operation that an answer names, if it goes on."""
    address = answer.headers.get("Azure-AsyncOperation")
    return address.rsplit("/", 1)[-1] if address else None
