from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferay.engine.resources import format_duration, parse_duration
from inferay.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT30S", 30), ("PT5M", 300), ("P1DT2H", 93600), ("PT0.5S", 0.5), ("PT0S", 0),
        ("P1D", 86400), ("PT1H30M5.25S", 5405.25), ("P1DT1S", 86401),
    ],
)  # fmt: skip
def test_durations_are_read_and_written(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("text", "seconds"), [("PT90S", 90), ("P1W", 604800), ("PT0,5S", 0.5)])
def test_other_ways_to_write_a_duration_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "P", "PT", "30", "PT30", "30S", "P1Y", "P1M", "PT-5S", "PT5S ", "PT5S\n", "PT1.5M",
     "P1DT", "PT٣S", "PT" + "9" * 5000 + "S"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected an ISO 8601 duration such as PT30S"):
        parse_duration(text)


@given(st.integers(0, 10**15))
def test_microseconds_survive_the_way_there_and_back(microseconds: int) -> None:
    seconds = microseconds / 1e6
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)


@given(st.integers(0, 10**9))
def test_whole_seconds_survive_exactly(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
