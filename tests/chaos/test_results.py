"""Parts of a chaos run add up in one table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.chaos.results import Part, record
from tests.chaos.trial import Verdict
from tests.chaos.workload import NODE_FAULTS, SCRIPTS, Plan


def part(commit: str, first: int, count: int, **kills: int) -> Part:
    verdicts = [Verdict(Plan.draw(seed), kills=Counter(kills)) for seed in
                range(first, first + count)]
    return Part.of(commit, verdicts)


def test_a_plan_is_drawn_from_its_seed_alone() -> None:
    assert [Plan.draw(seed) for seed in range(50)] == [Plan.draw(seed) for seed in range(50)]
    planned = [fault.kind for seed in range(100) for fault in Plan.draw(seed).faults]
    assert len(planned) >= 400


def test_a_hundred_trials_have_enough_of_each_kind() -> None:
    plans = [Plan.draw(seed) for seed in range(100)]
    far = [plan for plan in plans if plan.storage == "s3"]
    hard = {*NODE_FAULTS, "zombie driver"}
    assert len(far) >= 25
    assert sum(plan.fault_rate > 0 for plan in far) >= 15
    assert {plan.script for plan in far} == set(SCRIPTS)
    assert {plan.has_far_input for plan in far if plan.script == "table"} == {True, False}
    assert sum(any(fault.kind in hard for fault in plan.faults) for plan in plans) >= 20
    assert sum(any(fault.kind in hard for fault in plan.faults) for plan in far) >= 5
    assert sum(plan.script == "table" for plan in plans) >= 20


def test_parts_of_a_commit_add_up_and_a_repeated_part_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\n## Other\n\n| a |\n|---|\n| 1 |\n")
    for added in (part("abc", 0, 10, worker=2), part("abc", 10, 5, node=1),
                  part("abc", 0, 10, worker=3), part("def", 0, 1)):
        record(added, path)
    text = path.read_text()
    assert text.startswith("# Results\n\n## Other\n\n| a |\n|---|\n| 1 |\n\n## Chaos\n")
    rows = [line.split(" | ")[:5] for line in text.splitlines() if "abc" in line or "def" in line]
    assert rows == [
        ["| abc", "10 to 14", "5", "5", "5"], ["| abc", "0 to 9", "10", "10", "30"],
        ["| **abc**", "**all**", "**15**", "**15**", "**35**"], ["| def", "0 to 0", "1", "1", "0"],
    ]
