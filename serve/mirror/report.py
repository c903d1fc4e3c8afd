"""The shadow report: what the pairs of two deployments show, as plain values."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from inferay.serve.mirror.compare import Tolerance
from inferay.serve.mirror.drift import OutputDrift
from inferay.serve.mirror.intervals import Interval


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    count: int
    of: int
    rate: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Latency:
    """Durations of the pairs whose answers are both good.

    Attributes:
        median_difference: Of the shadow's duration less the live one's, of the same request.
    """

    pairs: int
    live_p50_s: float
    live_p95_s: float
    live_p99_s: float
    shadow_p50_s: float
    shadow_p95_s: float
    shadow_p99_s: float
    median_difference_s: float
    median_difference_interval: Interval | None
    mean_difference_s: float
    mean_difference_interval: Interval | None


@dataclass(frozen=True)
class Errors:
    """Answers that a client would have been told an error for, or none within the time."""

    live: Share
    shadow: Share
    difference: float | None
    difference_interval: Interval | None


@dataclass(frozen=True)
class Copies:
    """What became of copies, in all: pairs are of those that were answered or timed out.

    Attributes:
        dropped: Copies that were never sent, by reason; likewise those that `failed`.
        unlogged: Pairs that the disk did not take.
        unreadable: Lines of the log that a crash has torn.
        sampled: The share of pairs that the log has kept.
        other_revisions: Pairs left out, as they are of another revision of the shadow.
    """

    offered: int
    sent: int
    answered: int
    dropped: dict[str, int]
    failed: dict[str, int]
    unlogged: int
    unreadable: int
    sampled: float
    other_revisions: int


@dataclass(frozen=True)
class WorstPair:
    """Two answers that differ, and the request.

    Attributes:
        difference: Its kind: status, structure, value, number, bytes.
        path: Where it is in the JSON.
        largest: The greatest distance of two numbers; None if one of them is not finite.
    """

    request_id: str
    at: str
    difference: str
    path: str
    live_value: str
    shadow_value: str
    largest: float | None
    live_status: int | None
    shadow_status: int | None
    live_took_s: float
    shadow_took_s: float
    request: str
    live_body: str
    shadow_body: str


@dataclass(frozen=True)
class ShadowReport:
    """What the answers to the same requests show of two deployments.

    Two answers agree if a client could not tell them apart: the same status and, unless both are
    errors, the same JSON, or the same bytes.

    Attributes:
        reason: Why there are no pairs, and what to do; None if there are some.
        differences: Pairs that do not agree, by their gravest difference.
        statuses: Pairs by both statuses, as in `200/500`.
        took: As replicas take it, without the way there; `run` is `run()` alone.
        worst: Errors first, then by how far they lie apart.
    """

    live: str
    shadow: str
    live_revision: str | None
    shadow_revision: str | None
    pairs: int
    reason: str | None
    first_at: str | None
    last_at: str | None
    tolerance: Tolerance
    agreement: Share
    differences: dict[str, int]
    drift: list[OutputDrift]
    took: Latency | None
    run: Latency | None
    errors: Errors
    statuses: dict[str, int]
    copies: Copies
    worst: list[WorstPair]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can carry it: names of fields as REST has them, no NaN."""
        found: dict[str, Any] = _jsonable(self)
        return found


def _jsonable(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {_camel(one.name): _jsonable(getattr(value, one.name)) for one in fields(value)}
    return [_jsonable(each) for each in value] if isinstance(value, list) else value


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)
