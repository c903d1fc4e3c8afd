from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ReadTimeoutError

from inferay.engine.storage.retries import (
    AccessDenied,
    BucketMissing,
    ClockSkewed,
    CredentialsExpired,
    Fault,
    RetryPolicy,
    StorageThrottled,
    StorageUnavailable,
    fault_of,
    retry,
    retry_async,
)
from inferay.errors import NotAuthorized, Unavailable


def refusal(code: str, status: int) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "said"}, "ResponseMetadata": {"HTTPStatusCode": status}
    }
    return ClientError(response, "GetObject")


class Clock:
    """A clock that only waiting moves."""

    now_s = 0.0

    def now(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def attempts_of(*outcomes: Exception | str) -> tuple[Any, list[int]]:
    """Return an action with these outcomes, the last one for ever, and its count of calls."""
    calls: list[int] = []

    def attempt() -> str:
        outcome = outcomes[min(len(calls), len(outcomes) - 1)]
        calls.append(1)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return attempt, calls


PASSING = [
    refusal("SlowDown", 503), refusal("", 503), refusal("InternalError", 500), refusal("", 502),
    refusal("TooManyRequests", 429), refusal("RequestTimeout", 400),
    refusal("ConditionalRequestConflict", 409), ConnectionResetError("reset"), TimeoutError(),
    aiohttp.ClientPayloadError("cut"), aiohttp.ServerDisconnectedError(),
    ReadTimeoutError(endpoint_url="http://s3"),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    clock = Clock()
    attempt, calls = attempts_of(error, error, "read")
    assert retry(attempt, "reading", sleep=clock.sleep, now=clock.now) == "read"
    assert len(calls) == 3
    assert 0.15 <= clock.now_s <= 0.3


@pytest.mark.parametrize(("error", "raised"), [
    (refusal("NoSuchKey", 404), FileNotFoundError),
    (refusal("404", 404), FileNotFoundError),
    (refusal("PreconditionFailed", 412), FileExistsError),
    (refusal("NoSuchBucket", 404), BucketMissing),
    (refusal("AccessDenied", 403), AccessDenied),
    (refusal("InvalidAccessKeyId", 403), AccessDenied),
    (refusal("RequestTimeTooSkewed", 403), ClockSkewed),
    (refusal("ExpiredToken", 400), CredentialsExpired),
    (NoCredentialsError(), AccessDenied),
    (refusal("KeyTooLongError", 400), OSError),
])
def test_what_is_final_is_told_at_once_by_name(error: Exception, raised: type[Exception]) -> None:
    attempt, calls = attempts_of(error)
    with pytest.raises(raised, match=r"reading s3://b/k: .*") as caught:
        retry(attempt, "reading s3://b/k")
    assert type(caught.value) is raised
    assert len(calls) == 1


@pytest.mark.parametrize(("error", "raised"), [
    (refusal("SlowDown", 503), StorageThrottled),
    (refusal("InternalError", 500), StorageUnavailable),
    (ConnectionRefusedError(), StorageUnavailable),
])
def test_a_spent_budget_names_what_was_done_and_what_to_do(
    error: Exception, raised: type[Exception]
) -> None:
    clock = Clock()
    attempt, calls = attempts_of(error)
    with pytest.raises(raised, match=r"reading s3://b/k: .*resume the job") as caught:
        retry(attempt, "reading s3://b/k", sleep=clock.sleep, now=clock.now)
    assert type(caught.value) is raised
    assert len(calls) == 10
    assert clock.now_s < 30


def test_no_attempt_begins_after_the_budget_of_time() -> None:
    clock = Clock()

    def slow() -> None:
        clock.now_s += 30.0
        raise TimeoutError

    with pytest.raises(StorageUnavailable):
        retry(slow, "reading", sleep=clock.sleep, now=clock.now)
    assert clock.now_s <= 150.0


def test_expired_credentials_are_read_anew_once() -> None:
    refreshed: list[int] = []
    attempt, calls = attempts_of(refusal("ExpiredToken", 400), "read")
    clock = Clock()
    assert retry(
        attempt, "reading", refresh=lambda: refreshed.append(1), sleep=clock.sleep, now=clock.now
    ) == "read"
    attempt, calls = attempts_of(refusal("ExpiredToken", 400))
    with pytest.raises(CredentialsExpired, match="renew"):
        retry(attempt, "reading", refresh=lambda: refreshed.append(1), sleep=clock.sleep,
              now=clock.now)
    assert (len(calls), len(refreshed)) == (2, 2)


def test_waits_grow_are_bounded_and_drawn() -> None:
    policy = RetryPolicy(attempts_max=9)
    longest = list(policy.waits(lambda: 1.0))
    assert longest == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert list(policy.waits(lambda: 0.0)) == [wait_s / 2 for wait_s in longest]


def test_the_services_answer_is_found_behind_the_clients_own_error() -> None:
    for wrapped, answer, fault in (
        (OSError(22, "wrapped"), refusal("PreconditionFailed", 412), Fault.REFUSED),
        (FileNotFoundError("wrapped"), refusal("NoSuchBucket", 404), Fault.NO_BUCKET),
        (PermissionError("wrapped"), refusal("ExpiredToken", 400), Fault.EXPIRED),
        (PermissionError("wrapped"), refusal("RequestTimeTooSkewed", 403), Fault.SKEWED),
        (TimeoutError("wrapped"), refusal("AccessDenied", 403), Fault.DENIED),
    ):
        wrapped.__cause__ = answer
        assert fault_of(wrapped) is fault


def test_waiting_without_blocking_does_the_same() -> None:
    outcomes: Iterator[Exception | str] = iter([ConnectionResetError(), "read"])

    async def attempt() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    policy = RetryPolicy(first_wait_s=0.001)
    assert asyncio.run(retry_async(attempt, "reading", policy=policy)) == "read"


def test_callers_that_know_only_the_tree_of_errors_can_tell_them() -> None:
    assert issubclass(StorageThrottled, Unavailable)
    assert issubclass(CredentialsExpired, NotAuthorized)
