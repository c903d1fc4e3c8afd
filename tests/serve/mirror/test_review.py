from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inferay.serve.mirror.bodies import Body, body_of
from inferay.serve.mirror.compare import Tolerance
from inferay.serve.mirror.drift import OTHERS, PATHS_MAX
from inferay.serve.mirror.pairs import Answered, Pair, PairLog, folder_of
from inferay.serve.mirror.report import Copies, ShadowReport
from inferay.serve.mirror.review import Review, report_of
from tests.serve.mirror.shadows import exchange

NO_COPIES = Copies(0, 0, 0, {}, {}, 0, 0, 1.0, 0)


def side(value: Any, status: int | None = 200, took_s: float = 0.01, **rest: Any) -> Answered:
    body = value if isinstance(value, Body) else body_of(json.dumps(value).encode(), 10_000)
    return Answered(status, took_s, rest.get("run_s"), "application/json", body,
                    rest.get("revision"))


def pair(live: Answered, shadow: Answered, request_id: str = "id") -> Pair:
    return Pair(request_id, 1e9, body_of(b"{}", 100), live, shadow)


def report(*pairs: Pair, **tolerance: float) -> ShadowReport:
    review = Review(Tolerance(**tolerance))
    for each in pairs:
        review.add(each)
    return review.report("blue", "green", NO_COPIES)


def planted(count: int, share: float, seed: int) -> Iterator[Pair]:
    """Pairs of a model's scores of which this share, by chance, lies 0.1 too high."""
    chance = random.Random(seed)
    for number in range(count):
        score = chance.random()
        wrong = 0.1 if chance.random() < share else 0.0
        took_s = chance.expovariate(100)
        yield pair(
            side({"label": 1, "score": score}, took_s=took_s),
            side({"label": 1, "score": score + wrong}, took_s=took_s + 0.002 + 1e-4 * wrong),
            f"id-{number}",
        )


def test_a_planted_divergence_is_found_and_sized() -> None:
    found = report(*planted(10_000, 0.02, seed=1))
    assert found.agreement.rate == pytest.approx(0.98, abs=0.005)
    assert found.agreement.interval is not None
    assert found.agreement.interval.low <= 0.98 <= found.agreement.interval.high
    assert found.agreement.interval.high - found.agreement.interval.low < 0.01
    assert found.differences == {"number": 10_000 - found.agreement.count}
    label, score = found.drift
    assert (label.path, label.mean_difference, label.max_distance) == ("$.label", 0.0, 0.0)
    assert score.path == "$.score"
    assert score.mean_difference == pytest.approx(0.002, abs=0.0005)
    assert score.max_distance == pytest.approx(0.1)
    assert found.took is not None
    assert found.took.median_difference_s == pytest.approx(0.002, abs=1e-4)


def test_the_interval_has_the_true_divergence_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(250):
        chance = random.Random(seed)
        review = Review(Tolerance())
        same, other = pair(side(1), side(1)), pair(side(1), side(2))
        for _ in range(250):
            review.add(other if chance.random() < 0.02 else same)
        interval = review.report("blue", "green", NO_COPIES).agreement.interval
        assert interval is not None
        hits += interval.low <= 0.98 <= interval.high
    assert 0.91 <= hits / 250 <= 0.985


def test_what_a_tolerance_allows_agrees_and_is_drift_still() -> None:
    found = report(pair(side([1.0]), side([1.01])), relative=0.02)
    assert found.agreement.rate == 1.0
    assert found.drift[0].mean_difference == pytest.approx(0.01)


def test_the_drift_of_lists_counts_each_request_once() -> None:
    many = pair(side([0.0] * 98), side([1.0] * 98))
    found = report(many, pair(side([0.0]), side([0.0])), pair(side([0.0]), side([0.0])))
    drift, = found.drift
    assert (drift.path, drift.pairs, drift.values) == ("$[*]", 3, 100)
    assert drift.mean_difference == pytest.approx(1 / 3)


def test_what_is_not_finite_is_counted_and_leaves_the_rest_alone() -> None:
    finite = [pair(side([1.0]), side([2.0]))] * 3
    bad = [pair(side([one]), side([other])) for one, other in (
        (float("nan"), 1.0), (float("inf"), float("inf")), (1e308, -1e308), (10**400, 1),
    )]
    found = report(*finite, *bad)
    assert (found.drift[0].mean_difference, found.drift[0].non_finite) == (1.0, 4)
    json.dumps(found.to_dict(), allow_nan=False)


def test_outputs_that_are_keyed_by_ids_share_one_line() -> None:
    found = report(*[pair(side({f"user{n}": 1}), side({f"user{n}": 2})) for n in range(300)])
    assert len(found.drift) == PATHS_MAX + 1
    assert (found.drift[-1].path, found.drift[-1].values) == (OTHERS, 300 - PATHS_MAX)


def test_an_error_of_one_side_is_a_difference_and_of_both_is_none() -> None:
    good, bad = side([1]), side({"message": "at 10:00"}, 500)
    found = report(
        pair(good, good), pair(good, bad), pair(bad, good),
        pair(bad, side({"message": "at 10:01"}, 500)), pair(good, side("", None)),
    )
    assert found.agreement.count == 2
    assert found.differences == {"status": 3}
    assert found.statuses == {
        "200/200": 1, "200/500": 1, "200/none": 1, "500/200": 1, "500/500": 1,
    }
    assert (found.errors.live.count, found.errors.shadow.count) == (2, 3)
    assert found.errors.difference == pytest.approx(0.2)
    assert found.errors.difference_interval is not None
    assert found.took is not None
    assert found.took.pairs == 1


def test_the_worst_pairs_are_errors_then_the_farthest_apart() -> None:
    apart = [pair(side([0]), side([n]), f"by-{n}") for n in range(1, 30)]
    random.Random(0).shuffle(apart)
    found = report(
        *apart, pair(side([0]), side([float("nan")]), "nan"), pair(side("a"), side("b"), "text"),
        pair(side([1], 500), side([1]), "live"), pair(side([1]), side([1], 500), "shadow"),
        pair(side([1]), side([1]), "same"),
    )
    assert [one.request_id for one in found.worst] == [
        "shadow", "live", "text", "nan", *[f"by-{n}" for n in range(29, 23, -1)],
    ]
    assert (found.worst[4].path, found.worst[4].live_value, found.worst[4].shadow_value) == (
        "$[*]", "0", "29",
    )
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_worst_of_equals_are_the_earliest() -> None:
    found = report(*[pair(side("a"), side("b"), f"id-{n}") for n in range(50)])
    assert [one.request_id for one in found.worst] == [f"id-{n}" for n in range(10)]


def test_run_is_compared_apart_where_both_say_it() -> None:
    found = report(
        pair(side(1, run_s=0.001), side(1, run_s=0.003)), pair(side(1), side(1, run_s=0.5)),
    )
    assert found.run is not None
    assert found.run.pairs == 1
    assert found.run.median_difference_s == pytest.approx(0.002)


def test_a_report_has_names_as_rest_has_them() -> None:
    values = report(pair(side([1]), side([2]))).to_dict()
    assert values["agreement"]["of"] == 1
    assert values["took"]["liveP50S"] == 0.01
    assert values["drift"][0]["meanDifference"] == 1
    assert values["worst"][0]["requestId"] == "id"
    assert values["errors"]["live"]["interval"]["low"] == 0.0


def write(folder: Path, count: int, changes: dict[str, Any] | None = None) -> None:
    log = PairLog(folder, "blue", "r1", "replica")
    for number in range(count):
        log.append(exchange(f"id-{number}"), "green", side([1], **changes or {}))
    log.count("green", {
        "offered": count + 3, "sent": count + 1, "answered": count, "dropped": {"queue_full": 2},
        "failed": {"timed_out": 1}, "unlogged": 0,
    })
    log.close()


def test_a_report_of_a_log_says_what_it_did_not_see(tmp_path: Path) -> None:
    write(tmp_path, 20)
    write(tmp_path, 10)
    found = report_of(tmp_path, "blue", "green")
    assert (found.pairs, found.reason, found.agreement.rate) == (30, None, 1.0)
    assert found.first_at == found.last_at == "2001-09-09T01:46:40.000+00:00"
    assert found.copies == Copies(
        36, 32, 30, {"queue_full": 4}, {"timed_out": 2}, 0, 0, 1.0, 0
    )


def test_of_many_pairs_a_sample_is_read(tmp_path: Path) -> None:
    write(tmp_path, 1000)
    whole = report_of(tmp_path, "blue", "green")
    some = report_of(tmp_path, "blue", "green", bytes_max=100_000)
    assert (whole.pairs, whole.copies.sampled) == (1000, 1.0)
    assert some.copies.sampled < 1
    assert some.pairs == pytest.approx(1000 * some.copies.sampled, rel=0.3)


def test_pairs_of_other_revisions_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, 5, {"revision": "old"})
    write(tmp_path, 3, {"revision": "new"})
    found = report_of(tmp_path, "blue", "green", shadow_revision="new")
    assert (found.pairs, found.copies.other_revisions) == (3, 5)
    assert report_of(tmp_path, "blue", "green", live_revision="r2").pairs == 0


def test_what_an_earlier_revision_left_unanswered_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, 5, {"status": None, "revision": None})   # at 1e9

    def errors(since_s: float) -> tuple[int, int]:
        found = report_of(
            tmp_path, "blue", "green", shadow_revision="new", shadow_since_s=since_s
        )
        return found.errors.shadow.count, found.copies.other_revisions

    assert (errors(9e8), errors(1.1e9)) == ((5, 0), (0, 5))


def test_an_empty_report_says_why(tmp_path: Path) -> None:
    def reason(**rest: Any) -> str | None:
        return report_of(tmp_path, "blue", "green", **rest).reason

    assert reason(mirror_percent=0) == (
        "no mirror traffic to 'green' is set: online-endpoint update --mirror-traffic \"green=10\""
    )
    assert reason(mirror_percent=10) == (
        "no request that 'blue' has answered was copied to 'green' yet"
    )
    write(tmp_path, 0)
    assert reason(mirror_percent=10) == (
        "'green' has answered none of 3 copies (dropped: queue_full 2; failed: timed_out 1)"
    )
    assert "earlier revision of 'blue'" in (reason(live_revision="r2") or "")
    write(tmp_path, 2, {"revision": "old"})
    assert "earlier revision of 'green'" in (reason(shadow_revision="new") or "")
    json.dumps(report_of(tmp_path, "blue", "red").to_dict(), allow_nan=False)


def test_a_log_that_is_thinned_while_it_is_read_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 100)
    added = Review.add
    files = sorted(folder_of(tmp_path, "blue", "green").glob("*.[0-9]*"))

    def add(self: Review, pair: Pair) -> None:
        files[-1].unlink(missing_ok=True)   # after the first files are open
        added(self, pair)

    monkeypatch.setattr(Review, "add", add)
    found = report_of(tmp_path, "blue", "green")
    assert 0 < found.pairs < 100
