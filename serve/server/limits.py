"""How much a deployment's inference server takes on at once."""

from __future__ import annotations

from dataclasses import dataclass

#: Azure's greatest payload of a managed online endpoint is 1.5 MB; ours is larger, for images.
BODY_BYTES_MAX = 100 << 20


@dataclass(frozen=True)
class Limits:
    """A deployment's `request_settings`, and what Azure has no field for.

    Attributes:
        concurrent_requests_max: Calls of `run()` at once.
        queue_wait_s: How long a request waits for its call at most.
        request_timeout_s: How long a call may take before its client is told so.
        body_bytes_max: Of a request.
    """

    concurrent_requests_max: int = 1
    queue_wait_s: float = 0.5
    request_timeout_s: float = 5.0
    body_bytes_max: int = BODY_BYTES_MAX

    @property
    def waiting_max(self) -> int:
        """Requests that wait at once: with those that run, twice those that run, as on Azure."""
        return self.concurrent_requests_max

    @property
    def open_max(self) -> int:
        """Requests whose bodies are read at once: what a burst of clients opens, in bounds."""
        return 4 * self.concurrent_requests_max + 64
