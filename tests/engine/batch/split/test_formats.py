from __future__ import annotations

import pytest

from inferay.engine.batch.split.formats import is_hidden


@pytest.mark.parametrize("path", [
    "_SUCCESS", ".a.csv", "year=2024/_metadata", ".ipynb_checkpoints/a.csv", "_delta_log/0.json",
    "deep/.git/more/a.csv",
])
def test_what_other_programs_leave_beside_the_data_is_hidden(path: str) -> None:
    assert is_hidden(path)


@pytest.mark.parametrize("path", ["a.csv", "a_b/c.d/e_.csv", "year=2024/0.pq"])
def test_a_sign_inside_a_name_hides_nothing(path: str) -> None:
    assert not is_hidden(path)
