from __future__ import annotations

from pathlib import Path

import pytest

from inferay.engine.batch.listing import list_file
from inferay.engine.batch.plan import plan_mini_batches
from inferay.engine.batch.spec import JobSettings
from inferay.engine.batch.split.formats import is_hidden
from inferay.engine.storage import Access


@pytest.mark.parametrize("path", [
    "_SUCCESS", ".a.csv", "year=2024/_metadata", ".ipynb_checkpoints/a.csv", "_delta_log/0.json",
    "deep/.git/more/a.csv",
])
def test_what_other_programs_leave_beside_the_data_is_hidden(path: str) -> None:
    assert is_hidden(path)


@pytest.mark.parametrize("path", ["a.csv", "a_b/c.d/e_.csv", "year=2024/0.pq"])
def test_a_sign_inside_a_name_hides_nothing(path: str) -> None:
    assert not is_hidden(path)


@pytest.mark.parametrize(("skips_hidden", "items"), [(True, 0), (False, 2)])
def test_a_hidden_file_has_rows_only_where_it_was_named(
    tmp_path: Path, skips_hidden: bool, items: int
) -> None:
    path = tmp_path / "_scores.csv"
    path.write_text("id\n1\n2\n")
    planned = plan_mini_batches(
        list_file(str(path)), JobSettings(split="rows", table="pandas"), str(tmp_path), Access(),
        skips_hidden=skips_hidden,
    )
    [[unit]] = planned.mini_batches
    assert unit.items == items
