from __future__ import annotations

from inferay.serve.meter import Meter


def test_the_mean_counts_short_requests_that_no_look_would_see() -> None:
    now_s = 100.0
    meter = Meter(lambda: now_s)
    for _ in range(4):   # a quarter of a second each, then nothing for as long
        meter.enter(meter.live)
        now_s += 0.25
        meter.leave(meter.live)
        now_s += 0.25
    assert meter.in_flight == 0
    assert meter.mean_in_flight() == 0.5


def test_the_mean_is_of_the_time_since_it_was_asked_for() -> None:
    now_s = 0.0
    meter = Meter(lambda: now_s)
    meter.enter(meter.live)
    meter.enter(meter.shadow)
    now_s = 2.0
    assert meter.mean_in_flight() == 2.0
    meter.leave(meter.live)
    now_s = 4.0
    assert meter.mean_in_flight() == 1.0
    assert meter.mean_in_flight() == 1.0   # asked again at once: what is there now
