from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.batch.formats.columns import (
    COLUMNS_MAX,
    Type,
    TypesDifferError,
    describe,
    from_json,
    join,
    to_json,
    union,
)
from inferay.engine.batch.formats.so_far import ColumnsSoFar, columns_of
from inferay.errors import JobError

names = [
    "null", "bool", "string", "binary", "date32", "int8", "int16", "int32", "int64", "int64 wide",
    "uint8", "uint16", "uint32", "uint64", "uint64 wide", "halffloat", "float", "double",
]
simple = (
    st.sampled_from(names)
    | st.tuples(st.just("timestamp"), st.sampled_from(["s", "us", "ns"]),
                st.sampled_from([None, "UTC", "Europe/Berlin"])).map(list)
    | st.tuples(st.just("decimal"), st.sampled_from([128, 256]), st.integers(0, 3)).map(list)
)


def lists(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(st.sampled_from("ab"), inner, min_size=1, max_size=2)
    return inner.map(lambda kind: ["list", kind]) | fields.map(
        lambda found: ["struct", [list(field) for field in found.items()]]
    )


types = st.recursive(simple, lists, max_leaves=3)


def joined(*kinds: Type) -> object:
    found = kinds[0]
    try:
        for kind in kinds[1:]:
            found = join(found, kind)
    except TypesDifferError:
        return "differ"
    return in_any_order(found)


def in_any_order(kind: Any) -> Any:
    if isinstance(kind, list) and kind[0] == "struct":
        return ["struct", sorted((n, str(in_any_order(one))) for n, one in kind[1])]
    return [in_any_order(one) for one in kind] if isinstance(kind, list) else kind


@given(types, types, types)
def test_the_type_of_many_does_not_depend_on_their_order(a: Type, b: Type, c: Type) -> None:
    assert joined(a, b) == joined(b, a)
    assert joined(a, b, c) == joined(c, b, a) == joined(b, c, a)
    assert joined(a, a) == joined(a)


@pytest.mark.parametrize(("one", "other", "found"), [
    ("null", "string", "string"),
    ("int8", "int64", "int64"),
    ("uint8", "int8", "int16"),
    ("uint32", "int8", "int64"),
    ("uint64", "int64", "int64"),
    ("int64", "double", "double"),
    ("int8", "float", "double"),
    ("float", "halffloat", "float"),
    ("int64 wide", "int8", "int64 wide"),
    (["list", "null"], ["list", "int64"], ["list", "int64"]),
    (["struct", [["a", "int64"]]], ["struct", [["b", "string"], ["a", "double"]]],
     ["struct", [["a", "double"], ["b", "string"]]]),
    (["timestamp", "s", None], ["timestamp", "ns", None], ["timestamp", "ns", None]),
    (["timestamp", "s", "Asia/Tokyo"], ["timestamp", "s", "UTC"], ["timestamp", "s", "UTC"]),
    (["decimal", 128, 1], "int64", ["decimal", 128, 1]),
    (["map", "string", "int8"], ["map", "string", "int16"], ["map", "string", "int16"]),
    (["duration", "s"], ["duration", "ms"], ["duration", "ms"]),
])
def test_types_that_fit_have_a_type_that_holds_both(one: Type, other: Type, found: Type) -> None:
    assert join(one, other) == join(other, one) or found[0] == "struct"
    assert join(one, other) == found


@pytest.mark.parametrize(("one", "other"), [
    ("int64", "string"), ("bool", "int8"), ("int64 wide", "double"), ("uint64 wide", "int64"),
    ("string", "binary"), (["list", "string"], "string"), (["list", "string"], ["list", "bool"]),
    (["timestamp", "s", None], ["timestamp", "s", "UTC"]), (["decimal", 128, 1], "double"),
    ("date32", ["timestamp", "s", None]),
])
def test_types_that_do_not_fit_are_refused(one: Type, other: Type) -> None:
    for pair in ((one, other), (other, one)):
        with pytest.raises(TypesDifferError):
            join(*pair)


def test_names_keep_the_order_in_which_they_came() -> None:
    found = union((("b", "int8"), ("a", "null")), (("c", "string"), ("a", "bool")))
    assert found == (("b", "int8"), ("a", "bool"), ("c", "string"))
    assert from_json(to_json(found)) == found


def test_what_does_not_fit_is_text_where_rows_only_have_to_be_kept() -> None:
    one, other = (("a", "int8"),), (("a", ["list", "int8"]),)
    assert union(one, other, is_lenient=True) == (("a", "string"),)


def test_a_column_per_row_is_refused_before_it_grows() -> None:
    with pytest.raises(JobError, match="more than 2000 columns, the last one 'x1'") as caught:
        union(tuple((f"c{n}", "int8") for n in range(COLUMNS_MAX)), (("x1", "int8"),))
    assert caught.value.code == "TooManyColumns"


def test_types_are_told_in_words() -> None:
    assert describe(["struct", [["a", ["list", "int64 wide"]]]]) == (
        "struct<a: list<int64 (beyond 2**53)>>"
    )
    assert describe(["timestamp", "us", "UTC"]) == "timestamp<us, UTC>"
    assert describe(["timestamp", "us", None]) == "timestamp<us>"


def record(first: int, stop: int, **columns: Type) -> dict[str, Any]:
    return {"r": [first, stop], "columns": [list(column) for column in columns.items()]}


def test_rows_that_do_not_fit_are_found_at_once_and_the_mini_batches_named() -> None:
    so_far = ColumnsSoFar()
    for fitting in (record(5, 9, a="null"), record(0, 3, a="int64"), record(3, 4, a="double"),
                    {"r": [4, 5]}, record(5, 9, a="null")):
        so_far.take(fitting)
    with pytest.raises(JobError) as caught:
        so_far.take(record(9, 12, b="bool", a="string"))
    assert caught.value.message == (
        "mini-batch 3 and mini-batches 9 to 11: column 'a' is double in some rows and string in "
        "others; a column of a Parquet file has one type: let run() return one, or give "
        "output_file_name the ending .jsonl"
    )
    assert (caught.value.code, caught.value.target) == ("ColumnTypesDiffer", "a")


def test_the_columns_of_many_records_are_those_of_all_in_their_order() -> None:
    records = [record(0, 1, b="null"), record(1, 2, a="int64"), {"r": [2, 3]},
               record(3, 4, a="int64", b="bool")]
    assert columns_of(records) == (("b", "bool"), ("a", "int64"))
    with pytest.raises(JobError):
        columns_of([*records, record(5, 6, a="string")])
    lenient = columns_of([*records, record(5, 6, a="string")], is_lenient=True)
    assert dict(lenient)["a"] == "string"
