from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferay.serve.mirror.bodies import Body, body_of
from inferay.serve.mirror.compare import Comparison, Tolerance, compare, told

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def body(value: Any) -> Body:
    return body_of(json.dumps(value).encode(), 10_000)


def of(live: Any, shadow: Any, **tolerance: float) -> Comparison:
    return compare(body(live), body(shadow), Tolerance(**tolerance))


@settings(max_examples=50, deadline=None)
@given(value=VALUES)
def test_whatever_is_answered_twice_agrees(value: Any) -> None:
    assert of(value, value).kind is None
    twice = json.dumps(value)
    assert of(twice, twice).kind is None


@settings(max_examples=50, deadline=None)
@given(live=VALUES, shadow=VALUES)
def test_a_comparison_is_the_same_from_both_sides(live: Any, shadow: Any) -> None:
    there, back = of(live, shadow), of(shadow, live)
    assert (there.kind, there.path, there.largest) == (back.kind, back.path, back.largest)
    assert (told(there.live), told(there.shadow)) == (told(back.shadow), told(back.live))


@given(live=st.binary(max_size=20), shadow=st.binary(max_size=20))
def test_any_bytes_can_be_compared(live: bytes, shadow: bytes) -> None:
    compare(body_of(live, 10), body_of(shadow, 10), Tolerance())


@pytest.mark.parametrize(("live", "shadow", "kind", "path"), [
    ([1, 2], [1, 2.0], None, ""),
    ([1, 2], [1, 3], "number", "$[*]"),
    ({"a": {"b c": 1}}, {"a": {"b c": 2}}, "number", '$.a["b c"]'),
    ({"label": "cat"}, {"label": "dog"}, "value", "$.label"),
    ({"a": 1}, {"b": 1}, "structure", "$"),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, None, ""),
    ([1, 2], [1, 2, 3], "structure", "$"),
    ([1], [True], "structure", "$[*]"),
    ([0], [False], "structure", "$[*]"),
    ([1], ["1"], "structure", "$[*]"),
    ([None], [0], "structure", "$[*]"),
    ([True], [False], "value", "$[*]"),
    ([1, "a"], [2, "b"], "value", "$[*]"),
    (math.nan, math.nan, None, ""),
    (math.inf, math.inf, None, ""),
    (math.inf, -math.inf, "number", "$"),
    (math.nan, 1.0, "number", "$"),
    (10**400, 10**400, None, ""),
    (10**400, 1, "number", "$"),
    ('{"a": 1}', '{"a": 1.0}', None, ""),
    ('{"a": 1}', '{"a": 2}', "number", "$.a"),
    ('{"a": 1}', {"a": 1}, "structure", "$"),
    ("cat", "dog", "value", "$"),
])
def test_a_difference_has_a_kind_and_a_place(
    live: Any, shadow: Any, kind: str | None, path: str
) -> None:
    found = of(live, shadow)
    assert (found.kind, found.path) == (kind, path)


@pytest.mark.parametrize(("tolerance", "agrees"), [
    ({}, False), ({"absolute": 0.02}, True), ({"absolute": 0.005}, False),
    ({"relative": 0.02}, True), ({"relative": 0.005}, False),
])
def test_numbers_agree_within_a_tolerance(tolerance: dict[str, float], agrees: bool) -> None:
    assert (of(1.0, 1.01, **tolerance).kind is None) is agrees


def test_no_tolerance_reaches_what_is_not_finite() -> None:
    assert of(math.inf, 1.0, absolute=1e300, relative=10.0).kind == "number"
    assert of(math.nan, 1.0, absolute=1e300, relative=10.0).kind == "number"


def test_what_is_no_json_is_compared_by_its_bytes() -> None:
    csv, other = body_of(b"a,b\n1,2\n", 100), body_of(b"a,b\n1,3\n", 100)
    assert compare(csv, csv, Tolerance()).kind is None
    assert compare(csv, other, Tolerance()).kind == "bytes"
    assert compare(csv, body([1]), Tolerance()).kind == "bytes"


def test_what_was_too_large_to_keep_is_compared_by_its_digest() -> None:
    assert compare(body_of(b"xx", 1), body_of(b"xx", 1), Tolerance()).kind is None
    assert compare(body_of(b"xx", 1), body_of(b"xy", 1), Tolerance()).kind == "bytes"


def test_json_that_is_nested_too_deeply_is_compared_by_its_bytes() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    assert compare(body_of(deep, 10**6), body_of(deep, 10**6), Tolerance()).kind is None
    assert compare(body_of(deep, 10**6), body([1]), Tolerance()).kind == "bytes"


@pytest.mark.parametrize("value", ["\ud83d", {"\ud83d": 1}, ["\ud83d"]])
def test_half_of_a_pair_of_utf_16_can_be_told(value: Any) -> None:
    found = of(value, 1)
    assert found.kind == "structure"
    told(found.live).encode()


@pytest.mark.parametrize("depth", range(100, 1100, 100))
def test_json_of_any_depth_that_can_be_read_can_be_told(depth: int) -> None:
    deep = body_of(b"[" * depth + b"]" * depth, 10**6)
    found = compare(deep, body("x"), Tolerance())
    assert (found.kind, told(found.shadow)) in (("structure", "x"), ("bytes", '"x"'))
    assert len(told(found.live)) < 300
