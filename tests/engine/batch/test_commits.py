from __future__ import annotations

import random
from typing import Any

from inferay.engine.batch.commits import Commits

Record = dict[str, Any]


def commit(*range_: int, segment: str = "segments/a.rows", **more: Any) -> Record:
    return {
        "k": "commit", "r": list(range_), "seg": segment, "at": [range_[0], range_[1] * 10],
        "rows": range_[1], "ok": range_[0], "failures": [], "files": [], **more,
    }


def test_records_come_as_they_were_in_the_order_of_the_input_as_often_as_asked() -> None:
    records = [
        commit(0, 5), commit(5, 6, 0, 2), commit(5, 6, 2, 9), commit(6, 7, columns=[["x", "int"]]),
        commit(7, 9, failures=[{"mb": 7, "n": 1}]), commit(9, 10, files=[{"name": "f"}]),
        commit(10, 1 << 31, segment="segments/b.rows"),
    ]
    records[-1]["r"] = [10, 12]
    shuffled = [records[at] for at in random.Random(1).sample(range(len(records)), len(records))]
    commits = Commits([*shuffled[:3], {"k": "sealed", "by": 1}, *shuffled[3:]])
    assert list(commits) == records
    assert list(commits) == records
    assert len(commits) == len(records)


def test_the_first_commit_of_a_range_counts_and_a_later_one_that_overlaps_does_not() -> None:
    first = [commit(0, 5), commit(5, 6, 0, 2)]
    later = [commit(4, 7), commit(0, 5, segment="other"), commit(5, 6, 0, 2, segment="other")]
    assert list(Commits([*first, *later])) == first


def test_segments_that_are_objects_are_kept_as_numbers() -> None:
    names = ["w0.rows-000000", "w0.rows-000001", "w0.rows-1234567", "w0.rows", "w-1", "w-0000001",
             "w0.rows-000000", "w-x", ""]
    records = [commit(at, at + 1, segment=name) for at, name in enumerate(names)]
    assert list(Commits(records)) == records
    many = Commits(commit(at, at + 1, segment=f"w.rows-{at:06d}") for at in range(1000))
    assert [record["seg"] for record in many] == [f"w.rows-{at:06d}" for at in range(1000)]
    assert len(many._shapes) == 1


def test_no_records_are_no_commits() -> None:
    assert list(Commits([])) == []
