from __future__ import annotations

import pytest

from inferay.engine.batch.formats.sources import Source, places, valid_text


@pytest.mark.parametrize(("sources", "rows", "expected"), [
    ([Source("a"), Source("b")], 2, [("a", 0), ("b", 0)]),
    ([Source("a")], 3, [("a", 0), ("a", 1), ("a", 2)]),
    ([Source("a"), Source("b")], 3, [(None, None)] * 3),
    ([Source("a"), Source("b")], 1, [(None, None)]),
    ([Source("a", 10, 2), Source("b", 0, 1)], 3, [("a", 10), ("a", 11), ("b", 0)]),
    ([Source("a", 10, 2), Source("a", 12, 2)], 3, [("a", None)] * 3),
    ([Source("a", 10, 2), Source("b", 0, 2)], 2, [(None, None)] * 2),
    ([Source("a", 10, 2)], 0, []),
    ([], 0, []),
])
def test_a_row_is_placed_where_the_count_of_rows_says_it_is_from(
    sources: list[Source], rows: int, expected: list[tuple[str | None, int | None]]
) -> None:
    assert list(zip(*places(sources, rows), strict=True)) == expected


def test_a_name_that_is_no_utf8_is_shown_with_its_bytes() -> None:
    assert valid_text("é\udcff") == "é\\xff"
