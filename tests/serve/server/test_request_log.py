from __future__ import annotations

import asyncio
import logging

import pytest

from inferay.serve.server.request_log import LINES_MAX, LineFormatter, RequestLog

pytestmark = pytest.mark.anyio


def request_log(level: int = logging.INFO) -> RequestLog:
    log = logging.getLogger("inferay.tests.requests")
    log.setLevel(level)
    return RequestLog(log)


async def test_requests_of_one_moment_are_lines_of_one_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = request_log()
    log.add("POST", "/score?a=%20", 200, 0.0012345)
    log.add("GET", "/nothing", 404, 0.0001)
    assert not caplog.messages
    async with asyncio.timeout(30):
        while not caplog.messages:
            await asyncio.sleep(0.01)
    assert caplog.messages == ["POST /score?a=%20 200 1.234ms\nGET /nothing 404 0.100ms"]


async def test_each_line_begins_with_the_time_and_the_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = request_log()
    for _ in range(2):
        log.add("POST", "/score", 200, 0.001)
    log.flush()
    [record] = caplog.records
    text = LineFormatter("%(levelname)s %(name)s: %(message)s").format(record)
    assert text.splitlines() == ["INFO inferay.tests.requests: POST /score 200 1.000ms"] * 2


def test_another_record_keeps_its_own_lines() -> None:
    record = logging.makeLogRecord({"msg": "first\nsecond", "levelname": "INFO"})
    assert LineFormatter("%(levelname)s: %(message)s").format(record) == "INFO: first\nsecond"


async def test_no_more_lines_wait_than_may(caplog: pytest.LogCaptureFixture) -> None:
    log = request_log()
    for _ in range(LINES_MAX + 1):
        log.add("POST", "/score", 200, 0.001)
    assert [len(one.splitlines()) for one in caplog.messages] == [LINES_MAX]
    log.flush()
    assert len(caplog.messages) == 2


async def test_lines_below_the_level_are_not_even_made(caplog: pytest.LogCaptureFixture) -> None:
    log = request_log(logging.WARNING)
    log.add("POST", "/score", 200, 0.001)
    log.flush()
    assert not caplog.messages
