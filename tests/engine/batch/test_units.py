from __future__ import annotations

import json
import os

from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.batch.units import (
    Piece,
    Range,
    Unit,
    items_of,
    pieces_of,
    units_from_json,
    units_to_json,
)

file_names = st.binary(min_size=1, max_size=40).map(os.fsdecode)
parts = st.none() | st.tuples(
    st.sampled_from(["bytes", "rows"]), st.integers(0, 2**60), st.integers(0, 2**60)
)
spans = st.none() | st.tuples(st.integers(0, 2**60), st.integers(0, 2**60))
versions = st.integers(0, 2**62) | st.text(max_size=40)
units = st.builds(Unit, file_names, st.integers(0, 2**60), versions, parts, spans)


@given(st.lists(units | st.builds(Unit, file_names, st.just(0), versions, st.none(), st.none())))
def test_units_survive_json_whatever_bytes_their_names_have(found: list[Unit]) -> None:
    again = units_from_json(json.loads(json.dumps(units_to_json(found))))
    assert again == found
    assert {type(unit) for unit in again} <= {Unit}


@given(st.binary(min_size=1, max_size=40))
def test_the_bytes_of_a_name_come_back_exactly(name: bytes) -> None:
    units = [Unit(os.fsdecode(name), 0, 0)]
    [unit] = units_from_json(json.loads(json.dumps(units_to_json(units))))
    assert os.fsencode(unit.path) == name


@given(st.integers(0, 10**9), st.integers(1, 10**6), st.none() | st.tuples(
    st.integers(0, 10**6), st.integers(0, 10**6)
))
def test_a_range_survives_json(first: int, size: int, items: tuple[int, int] | None) -> None:
    one = Range(first, first + size, items)
    assert Range.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert one.is_part == (items is not None)


def test_ranges_of_one_mini_batch_stand_in_the_order_of_their_items() -> None:
    ranges = [Range(2, 3), Range(1, 2, (4, 8)), Range(0, 1), Range(1, 2, (0, 4))]
    keys = [one.order_key for one in sorted(ranges, key=lambda one: one.order_key)]
    assert keys == [(0, 0), (1, 0), (1, 4), (2, 0)]


def test_an_item_is_named_with_its_part() -> None:
    assert Unit("a/b.csv", 9, 0).describe() == {"item": "a/b.csv"}
    assert Unit("b.csv", 9, 0, ("rows", 3, 5)).describe() == {"item": "b.csv", "rows": [3, 5]}
    cut = Unit("c.csv", 9, 0, ("bytes", 30, 99), (10, 20))
    assert cut.narrow(2, 6).narrow(1, 2) == cut._replace(rows=(13, 14, 3))
    assert cut.narrow(2, 3).describe() == {"item": "c.csv", "rows": [12, 13]}
    assert cut.narrow(0, 10) == cut
    assert Unit("a/b.csv", 9, 0).narrow(0, 1) == Unit("a/b.csv", 9, 0)


@given(st.lists(st.none() | st.integers(1, 9), max_size=6), st.data())
def test_pieces_are_those_items_and_no_others(rows: list[int | None], data: st.DataObject) -> None:
    units = [
        Unit(f"{number}", 9, 0, None, None if count is None else (5, 5 + count))
        for number, count in enumerate(rows)
    ]
    items = [(unit, at) for unit in units for at in range(unit.items)]
    assert items_of(units) == len(items)
    start = data.draw(st.integers(0, len(items)))
    stop = data.draw(st.integers(start, len(items)))
    found = pieces_of(units, (start, stop))
    assert [(one.unit, at) for one in found for at in range(one.start, one.stop)] == \
        items[start:stop]
    assert pieces_of(units) == [Piece(unit, 0, unit.items) for unit in units]
