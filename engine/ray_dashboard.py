"""HTTP with a Ray head's dashboard: its address, its token, and what may go wrong.

Spoken directly, so that the control plane does not have to import Ray (two seconds and 100 MB).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from inferay.errors import Unavailable

#: Ray answers these requests in milliseconds; a loaded head may take seconds.
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class RayAddress:
    """Where a Ray head answers, and the file with its token.

    Attributes:
        gcs: `HOST:PORT` for `ray.init`.
        dashboard: `http://HOST:PORT` of the REST APIs.
        token_path: File with the token, or None for a cluster without.
    """

    gcs: str
    dashboard: str
    token_path: Path | None


class Dashboard:
    """The REST APIs of one Ray cluster.

    Args:
        address: Of its head.
        timeout_s: Of a request.

    Raises:
        Unavailable: The file with its token cannot be read.
    """

    def __init__(self, address: RayAddress, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address
        headers = {"User-Agent": "inferay"}   # Ray refuses what looks like a browser
        if address.token_path is not None:
            headers["Authorization"] = f"Bearer {_token(address.token_path)}"
        self._http = httpx.Client(
            base_url=address.dashboard, headers=headers, timeout=timeout_s, trust_env=False
        )

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return what Ray answers.

        Raises:
            Unavailable: It does not, or refuses the token.
        """
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"Ray does not answer at {self.address.dashboard}: {error}", code="RayUnavailable"
            ) from error
        if answer.status_code in (401, 403):
            raise Unavailable(
                f"Ray at {self.address.dashboard} refuses this workspace's token",
                code="RayUnavailable",
            )
        return answer

    @contextmanager
    def checked(self, answer: httpx.Response) -> Iterator[None]:
        """Read an answer that has to be Ray's, in the block.

        Raises:
            Unavailable: It is not.
        """
        what = f"status {answer.status_code}"
        try:
            if answer.status_code == 200:
                what = "something that is not Ray's"
                yield
                return
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise Unavailable(
            f"Ray at {self.address.dashboard} answered {what} for {answer.request.url.path}",
            code="RayUnavailable",
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise Unavailable(
            f"cannot read Ray's token {path}: {error.strerror}", code="RayUnavailable"
        ) from None
