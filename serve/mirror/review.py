"""Reviews pairs, one by one, into a shadow report. Pure, but for `report_of`, which reads a log."""

from __future__ import annotations

import heapq
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inferay.errors import Unavailable
from inferay.serve.mirror.bodies import Body
from inferay.serve.mirror.compare import STATUS, Comparison, Tolerance, compare, shorten, told
from inferay.serve.mirror.drift import Drift
from inferay.serve.mirror.intervals import (
    Moments,
    median_interval,
    paired_difference,
    quantile,
    wilson,
)
from inferay.serve.mirror.pairs import Answered, Pair, folder_of
from inferay.serve.mirror.report import Copies, Errors, Latency, ShadowReport, Share, WorstPair
from inferay.serve.mirror.sample import read_sample

#: Pairs that are shown.
WORST = 10

#: Pairs that are read: some 60,000 of 1 KB, which size a share to 0.1 points, in five seconds.
REPORT_BYTES_MAX = 64 << 20

#: Of a body that is shown.
SHOWN_CHARACTERS = 2000

#: A log that replicas thin while it is read is read anew, so often.
READS_MAX = 5

#: What a status is called where there is none.
NO_ANSWER = "none"

#: Kinds of difference of which the size is not known: they come before all numbers.
_GRAVITY = {"shadow": 4, "live": 3, "other": 2, "number": 1}


def report_of(
    pairs_dir: Path, live: str, shadow: str, *, live_revision: str | None = None,
    shadow_revision: str | None = None, shadow_since_s: float = -math.inf,
    mirror_percent: int | None = None,
    tolerance: Tolerance | None = None, worst: int = WORST, bytes_max: int = REPORT_BYTES_MAX,
) -> ShadowReport:
    """Read the pairs of two deployments, and report on them; takes seconds where there are many.

    Args:
        pairs_dir: Of the endpoint; it need not exist.
        live: The deployment that answered clients.
        shadow: The one that got the copies.
        live_revision: Only its pairs; None for all.
        shadow_revision: Pairs that name another one are left out; None for all.
        shadow_since_s: When that revision was made, in seconds of Unix: earlier pairs that name
            none, as nothing has answered, are left out too.
        mirror_percent: What the endpoint's rule says of the shadow, for an empty report's reason.
        tolerance: How far numbers may lie apart and still agree; by default not at all.
        worst: Pairs to show.
        bytes_max: Of pairs; of more, a sample by request id is read.

    Raises:
        Unavailable: Replicas have changed the log again and again while it was read.
    """
    for _ in range(READS_MAX):
        sample = read_sample(folder_of(pairs_dir, live, shadow), live_revision, bytes_max)
        review = Review(
            tolerance or Tolerance(), worst=worst, shadow_revision=shadow_revision,
            shadow_since_s=shadow_since_s,
        )
        try:
            for pair in sample.pairs():
                review.add(pair)
        except FileNotFoundError:
            continue
        copies = _copies(
            sample.counts, sample.unreadable, 2.0 ** -sample.level_min, review.other_revisions
        )
        reason = None
        if not review.pairs:
            is_older = sample.has_log and not sample.counts
            reason = _reason(live, shadow, copies, mirror_percent, is_older=is_older)
        return review.report(live, shadow, copies, reason, live_revision)
    raise Unavailable(f"the pairs of '{live}' and '{shadow}' changed while they were read: retry")


class Review:
    """Takes pairs; memory grows by 48 bytes with each, for exact percentiles.

    Args:
        tolerance: How far numbers may lie apart and still agree.
        worst: Pairs to show.
        shadow_revision: Pairs that name another one are left out.
        shadow_since_s: Of pairs that name none, those that began before this are.
    """

    def __init__(
        self, tolerance: Tolerance, *, worst: int = WORST, shadow_revision: str | None = None,
        shadow_since_s: float = -math.inf,
    ) -> None:
        self._tolerance = tolerance
        self._worst_max = worst
        self._shadow_revision = shadow_revision
        self._shadow_since_s = shadow_since_s
        self._agreed = 0
        self._differences: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._errors: Counter[tuple[bool, bool]] = Counter()
        self._drift = Drift()
        self._took = _Durations()
        self._run = _Durations()
        self._worst: list[tuple[tuple[int, float], int, Pair, Comparison]] = []
        self._first_s = math.inf
        self._last_s = -math.inf
        self.pairs = 0
        self.other_revisions = 0

    def add(self, pair: Pair) -> None:
        """Take a pair into account."""
        live, shadow = pair.live, pair.shadow
        if self._is_of_another_revision(pair):
            self.other_revisions += 1
            return
        self.pairs += 1
        self._first_s = min(self._first_s, pair.began_unix_s)
        self._last_s = max(self._last_s, pair.began_unix_s)
        self._statuses[f"{_status(live)}/{_status(shadow)}"] += 1
        self._errors[live.is_error, shadow.is_error] += 1
        found = self._compare(live, shadow)
        if found.kind is None:
            self._agreed += 1
        else:
            self._differences[found.kind] += 1
            self._keep_if_bad(pair, found)

    def report(
        self, live: str, shadow: str, copies: Copies, reason: str | None = None,
        live_revision: str | None = None,
    ) -> ShadowReport:
        """Return what the pairs so far show."""
        return ShadowReport(
            live, shadow, live_revision, self._shadow_revision, self.pairs, reason,
            _iso(self._first_s), _iso(self._last_s), self._tolerance,
            _share(self._agreed, self.pairs), dict(self._differences), self._drift.outputs(),
            self._took.latency(), self._run.latency(), self._error_rates(),
            dict(sorted(self._statuses.items())), copies,
            [_shown(one[2], one[3]) for one in sorted(self._worst, key=lambda one: one[:2])[::-1]],
        )

    def _is_of_another_revision(self, pair: Pair) -> bool:
        if pair.shadow.revision is None:
            return pair.began_unix_s < self._shadow_since_s
        return self._shadow_revision not in (None, pair.shadow.revision)

    def _compare(self, live: Answered, shadow: Answered) -> Comparison:
        if live.status != shadow.status:
            found = Comparison()
            found.differ(STATUS, "", _status(live), _status(shadow))
            return found
        if live.is_error:   # texts of errors have times and numbers of lines in them
            return Comparison()
        self._took.add(live.took_s, shadow.took_s)
        if live.run_s is not None and shadow.run_s is not None:
            self._run.add(live.run_s, shadow.run_s)
        found = compare(live.body, shadow.body, self._tolerance)
        self._drift.add(found)
        return found

    def _keep_if_bad(self, pair: Pair, found: Comparison) -> None:
        one = (_badness(pair, found), -self.pairs, pair, found)   # of equals, the earliest
        if len(self._worst) < self._worst_max:
            heapq.heappush(self._worst, one)
        elif self._worst and one[:2] > self._worst[0][:2]:
            heapq.heapreplace(self._worst, one)

    def _error_rates(self) -> Errors:
        count = self._errors
        both, live = count[True, True], count[True, False]
        shadow, neither = count[False, True], count[False, False]
        return Errors(
            _share(both + live, self.pairs), _share(both + shadow, self.pairs),
            (shadow - live) / self.pairs if self.pairs else None,
            paired_difference(both, live, shadow, neither),
        )


class _Durations:
    """Durations of both sides of pairs, in seconds."""

    def __init__(self) -> None:
        self._live = array("d")
        self._shadow = array("d")

    def add(self, live_s: float, shadow_s: float) -> None:
        self._live.append(live_s)
        self._shadow.append(shadow_s)

    def latency(self) -> Latency | None:
        if not self._live:
            return None
        differences = [two - one for one, two in zip(self._live, self._shadow, strict=True)]
        moments = Moments()
        for each in differences:
            moments.add(each)
        differences.sort()
        live, shadow = sorted(self._live), sorted(self._shadow)
        return Latency(
            len(live),
            quantile(live, 0.5), quantile(live, 0.95), quantile(live, 0.99),
            quantile(shadow, 0.5), quantile(shadow, 0.95), quantile(shadow, 0.99),
            quantile(differences, 0.5), median_interval(differences),
            moments.mean, moments.interval,
        )


def _badness(pair: Pair, found: Comparison) -> tuple[int, float]:
    if pair.shadow.is_error and not pair.live.is_error:
        return _GRAVITY["shadow"], 0.0
    if pair.live.is_error and not pair.shadow.is_error:
        return _GRAVITY["live"], 0.0
    return _GRAVITY["number" if found.kind == "number" else "other"], found.largest


def _shown(pair: Pair, found: Comparison) -> WorstPair:
    return WorstPair(
        pair.request_id, _iso(pair.began_unix_s) or "", found.kind or "", found.path,
        told(found.live), told(found.shadow),
        found.largest if math.isfinite(found.largest) else None,
        pair.live.status, pair.shadow.status, pair.live.took_s, pair.shadow.took_s,
        _text(pair.request), _text(pair.live.body), _text(pair.shadow.body),
    )


def _text(body: Body) -> str:
    if isinstance(body.content, str):
        return shorten(body.content, SHOWN_CHARACTERS)
    said = f"sha256 {body.sha256}" if body.sha256 else "not text"
    return f"({body.size_bytes} bytes, {said})"


def _status(side: Answered) -> str:
    return NO_ANSWER if side.status is None else str(side.status)


def _share(count: int, of: int) -> Share:
    return Share(count, of, count / of if of else None, wilson(count, of))


def _iso(unix_s: float) -> str | None:
    if not math.isfinite(unix_s):
        return None
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")


def _copies(
    counts: Iterable[Mapping[str, Any]], unreadable: int, sampled: float, other_revisions: int
) -> Copies:
    totals: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for one in counts:
        dropped.update(one.get("dropped", {}))
        failed.update(one.get("failed", {}))
        for name in ("offered", "sent", "answered", "unlogged"):
            totals[name] += one.get(name, 0)
    return Copies(
        totals["offered"], totals["sent"], totals["answered"], dict(dropped), dict(failed),
        totals["unlogged"], unreadable, sampled, other_revisions,
    )


def _reason(
    live: str, shadow: str, copies: Copies, mirror_percent: int | None, *, is_older: bool
) -> str:
    """Return why there is no pair, and what to do."""
    if copies.other_revisions:
        return (
            f"the {copies.other_revisions} pairs that there are compare '{live}' with an earlier "
            f"revision of '{shadow}'; no copy has been answered since"
        )
    if copies.offered:
        return (
            f"'{shadow}' has answered none of {copies.offered} copies "
            f"(dropped: {_listed(copies.dropped)}; failed: {_listed(copies.failed)})"
        )
    if mirror_percent == 0:
        return (
            f"no mirror traffic to '{shadow}' is set: "
            f"online-endpoint update --mirror-traffic \"{shadow}=10\""
        )
    if is_older:
        return (
            f"the pairs that there are were answered by an earlier revision of '{live}'; no copy "
            f"was sent to '{shadow}' since"
        )
    return f"no request that '{live}' has answered was copied to '{shadow}' yet"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
