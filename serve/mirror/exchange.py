"""A live request of which copies are to be sent, and its answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exchange:
    """A finished live request that the edge has drawn targets for.

    Attributes:
        deployment: The live one, which has answered.
        request_id: The edge's own id of the live request: it pairs the answers.
        targets: The deployments that get a copy each.
        query: What stands after the `?`, as it came.
        headers: Of the request, as the container saw them: without the client's credential.
        answer_type: Content type of the answer, or None.
        answer_body: As the container gave it, before the edge maps it.
        began_unix_s: When the request reached the replica.
        took_s: From then until the answer was handed out.
        run_s: How long `run()` took; None if it was not called.
    """

    endpoint: str
    deployment: str
    request_id: str
    targets: tuple[str, ...]
    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    request_body: bytes
    status: int
    answer_type: bytes | None
    answer_body: bytes
    began_unix_s: float
    took_s: float
    run_s: float | None

    @property
    def size_bytes(self) -> int:
        """What it holds in memory."""
        return len(self.request_body) + len(self.answer_body)
