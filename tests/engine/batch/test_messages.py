from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.batch.messages import (
    Done,
    Failed,
    Failure,
    Receipt,
    ReceiptArrived,
    StoredFile,
    WorkerDied,
    WorkerReady,
    WorkerStartFailed,
)
from inferay.engine.batch.pool import event_of
from inferay.engine.batch.units import Range

numbers = st.integers(0, 10**9)
ranges = st.builds(
    lambda first, size, items: Range(first, first + (1 if items else size), items),
    numbers, st.integers(1, 100), st.none() | st.tuples(numbers, numbers),
)
failures = st.builds(Failure, st.text(), st.text(), st.text(), st.booleans())
files = st.builds(StoredFile, st.text(), numbers, st.text(), st.text(), st.integers(-1, 9))
receipts = st.builds(
    Receipt, numbers,
    st.lists(st.builds(
        Done, ranges, st.text(), numbers, numbers, numbers, numbers,
        st.lists(st.tuples(numbers, numbers, numbers), max_size=2).map(tuple),
        st.lists(files, max_size=2).map(tuple),
    ), max_size=3).map(tuple),
    st.lists(st.builds(Failed, ranges, numbers, failures), max_size=3).map(tuple),
    st.none() | ranges, st.floats(0, 1e6), st.floats(0, 1e6),
)


@given(receipts)
def test_a_receipt_survives_json(receipt: Receipt) -> None:
    assert Receipt.from_json(json.loads(json.dumps(receipt.to_json()))) == receipt


@given(receipts)
def test_a_receipt_is_one_line(receipt: Receipt) -> None:
    line = json.dumps({"k": "receipt", "receipt": receipt.to_json(), "standby": True})
    assert len((line + "\n").splitlines()) == 1
    assert event_of(3, json.loads(line)) == ReceiptArrived(3, receipt, has_standby=True)


def test_messages_become_events_of_their_slot() -> None:
    failure = Failure("Exited", "x", "tb", is_own=False)
    assert event_of(1, {"k": "ready", "standby": False}) == WorkerReady(1)
    assert event_of(2, {"k": "start_failed", "failure": failure.__dict__}) == WorkerStartFailed(
        2, failure
    )
    died = {"k": "died", "failure": failure.__dict__, "in_hand": 4}
    assert event_of(3, died) == WorkerDied(3, failure, 4)


def test_failures_of_one_cause_have_one_signature() -> None:
    one = Failure("Exception", "E: x", "traceback one")
    assert one.signature == Failure("Exception", "E: x", "two", is_own=False).signature
    assert one.signature != Failure("Exception", "E: y").signature


@pytest.mark.parametrize("value", [None, Range(1, 3)])
def test_the_rest_of_a_lease_is_a_range_or_nothing(value: Range | None) -> None:
    receipt = Receipt(1, (), (), value, 0.0, 0.0)
    assert Receipt.from_json(json.loads(json.dumps(receipt.to_json()))).rest == value
