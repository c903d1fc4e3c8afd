from __future__ import annotations

import json
import os

from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.batch.units import Range, Unit

file_names = st.binary(min_size=1, max_size=40).map(os.fsdecode)
parts = st.none() | st.tuples(
    st.sampled_from(["bytes", "rows"]), st.integers(0, 2**60), st.integers(0, 2**60)
)
units = st.builds(Unit, file_names, st.integers(0, 2**60), st.integers(0, 2**62), parts)


@given(units)
def test_a_unit_survives_json_whatever_bytes_its_name_has(unit: Unit) -> None:
    assert Unit.from_json(json.loads(json.dumps(unit.to_json()))) == unit


@given(st.binary(min_size=1, max_size=40))
def test_the_bytes_of_a_name_come_back_exactly(name: bytes) -> None:
    unit = Unit.from_json(json.loads(json.dumps(Unit(os.fsdecode(name), 0, 0).to_json())))
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
