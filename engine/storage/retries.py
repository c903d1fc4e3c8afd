"""What a failed request to storage means, whether it is tried again, and how it is named at last.

Throttling, resets, silence and the service's own errors are tried again, after waits that grow and
are drawn at random, within a budget of attempts and time. A refusal, or a name that is not there,
is final at once. Nothing below this retries (`filesystems` sees to it): attempts would multiply.
"""

from __future__ import annotations

import enum
import math
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from inferay.errors import InferayError, NotAuthorized, NotFound, Unavailable

T = TypeVar("T")

#: Attempts of one request, the first included: with 30 % faults, one in 170,000 fails them all.
ATTEMPTS_MAX = 10

#: Upper bound of the first wait, doubled from one to the next, up to the largest one.
FIRST_WAIT_S = 0.1
WAIT_S_MAX = 5.0

#: No attempt begins later than this after the first one: an outage longer than that fails the job,
#: which can be resumed.
BUDGET_S = 120.0


class StorageUnavailable(Unavailable):
    """Raised when storage did not answer, or with errors of its own, until the budget was spent."""

    code = "StorageUnavailable"


class StorageThrottled(StorageUnavailable):
    """Raised when storage refused for too many requests until the budget was spent."""

    code = "StorageThrottled"


class ClockSkewed(Unavailable):
    """Raised when storage refuses requests because this machine's clock is wrong."""

    code = "ClockSkewed"


class CredentialsExpired(NotAuthorized):
    """Raised when the credentials for storage have expired and there are no newer ones."""

    code = "CredentialsExpired"


class AccessDenied(NotAuthorized):
    """Raised when storage does not allow what was asked of it."""

    code = "AccessDenied"


class BucketMissing(NotFound):
    """Raised when the bucket, or container, does not exist."""

    code = "BucketMissing"


class Fault(enum.Enum):
    """What a failed request means."""

    MISSING = "missing"
    REFUSED = "refused"   # a condition of the request does not hold
    THROTTLED = "throttled"
    TRANSIENT = "transient"
    EXPIRED = "expired"
    DENIED = "denied"
    NO_BUCKET = "no bucket"
    SKEWED = "skewed"
    OTHER = "other"   # a wrong request, or a fault of ours: shown as it is


_OF_CODE = {
    "NoSuchKey": Fault.MISSING, "NoSuchUpload": Fault.MISSING, "NotFound": Fault.MISSING,
    "NoSuchBucket": Fault.NO_BUCKET,
    "PreconditionFailed": Fault.REFUSED,
    "ConditionalRequestConflict": Fault.TRANSIENT, "OperationAborted": Fault.TRANSIENT,
    "SlowDown": Fault.THROTTLED, "Throttling": Fault.THROTTLED, "TooManyRequests": Fault.THROTTLED,
    "ThrottlingException": Fault.THROTTLED, "RequestLimitExceeded": Fault.THROTTLED,
    "ExpiredToken": Fault.EXPIRED, "ExpiredTokenException": Fault.EXPIRED,
    "TokenRefreshRequired": Fault.EXPIRED, "RequestExpired": Fault.EXPIRED,
    "RequestTimeTooSkewed": Fault.SKEWED,
    "RequestTimeout": Fault.TRANSIENT, "IncompleteBody": Fault.TRANSIENT,
    "InternalError": Fault.TRANSIENT, "ServiceUnavailable": Fault.TRANSIENT,
    "BadDigest": Fault.TRANSIENT, "XAmzContentSHA256Mismatch": Fault.TRANSIENT,
    # Azure's, where the status does not say it
    "BlobAlreadyExists": Fault.REFUSED, "InvalidBlockList": Fault.REFUSED,
    "ContainerNotFound": Fault.NO_BUCKET, "ContainerBeingDeleted": Fault.NO_BUCKET,
    "Md5Mismatch": Fault.TRANSIENT, "OperationTimedOut": Fault.TRANSIENT,
    "SignatureExpired": Fault.EXPIRED,
}
_OF_STATUS = {
    401: Fault.DENIED, 403: Fault.DENIED, 404: Fault.MISSING, 408: Fault.TRANSIENT,
    410: Fault.MISSING, 412: Fault.REFUSED, 429: Fault.THROTTLED, 503: Fault.THROTTLED,
}


#: Errors of botocore's and Azure's clients that have no answer of the service.
_NO_CREDENTIALS = (
    "NoCredentialsError", "PartialCredentialsError", "ClientAuthenticationError",
    "CredentialUnavailableError", "AzureSigningError",
)


def fault_of(error: BaseException) -> Fault:
    """Return what a failed request means, whichever of the clients raised it."""
    answer = answer_of(error)
    if answer is not None:
        return _OF_CODE.get(answer[0]) or _of_status(answer[1])
    cause: BaseException | None = error
    while cause is not None:
        fault = _fault_of_one(cause)
        if fault is not Fault.OTHER:
            return fault
        cause = cause.__cause__
    return Fault.OTHER


def answer_of(error: BaseException) -> tuple[str, Any, str] | None:
    """Return code, status and message of the service's answer, if it gave one.

    s3fs and adlfs raise errors of their own, which say less, with the service's as the cause.
    """
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            said = response.get("Error", {})
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return str(said.get("Code", "")), status, str(said.get("Message") or "")
        if response is not None and type(cause).__module__.startswith("azure."):
            return _azure_answer(cause, response)
        cause = cause.__cause__
    return None


def _azure_answer(error: BaseException, response: Any) -> tuple[str, Any, str]:
    """Return the same of an error of Azure's client, whose message ends with ids and times."""
    code = getattr(error, "error_code", None) or response.headers.get("x-ms-error-code") or ""
    said = str(error)
    if "not valid in the specified time frame" in said:
        code = "SignatureExpired"
    return str(getattr(code, "value", code)), response.status_code, said.partition("\n")[0].strip()


def _fault_of_one(error: BaseException) -> Fault:
    status = getattr(error, "status", None)
    if isinstance(status, int) and status >= 300:
        return _of_status(status)
    if isinstance(error, FileNotFoundError):
        return Fault.MISSING
    if isinstance(error, PermissionError):
        return Fault.DENIED
    if type(error).__name__ in _NO_CREDENTIALS:
        return Fault.DENIED
    if isinstance(error, (ConnectionError, TimeoutError, EOFError, *_network_errors())):
        return Fault.TRANSIENT
    return Fault.OTHER


def _of_status(status: Any) -> Fault:
    if not isinstance(status, int):
        return Fault.OTHER
    return _OF_STATUS.get(status) or (Fault.TRANSIENT if status >= 500 else Fault.OTHER)


def _network_errors() -> tuple[type[BaseException], ...]:
    """Return what the clients that are loaded raise for a connection that failed."""
    found: list[type[BaseException]] = []
    for module, names in (
        ("aiohttp", ("ClientConnectionError", "ClientPayloadError")),
        ("botocore.exceptions", ("HTTPClientError", "ConnectionError", "IncompleteReadError")),
        ("botocore.parsers", ("ResponseParserError",)),
        ("urllib3.exceptions", ("HTTPError",)),
        ("azure.core.exceptions",
         ("ServiceRequestError", "ServiceResponseError", "IncompleteReadError")),
    ):
        loaded = sys.modules.get(module)
        found += [getattr(loaded, name) for name in names if hasattr(loaded, name)]
    return tuple(found)


def named(error: BaseException, what: str) -> Exception:
    """Return the error that a caller sees for a failed request that is not tried again.

    Args:
        error: As it was raised.
        what: What was done and to what, such as "writing s3://bucket/key".
    """
    said = f"{what}: {_one_line(error)}"
    fault = fault_of(error)
    if isinstance(error, InferayError):
        return error
    if fault is Fault.MISSING:
        return FileNotFoundError(said)
    if fault is Fault.REFUSED:
        return FileExistsError(said)
    if fault is Fault.NO_BUCKET:
        return BucketMissing(f"{said}; create the bucket or container, or correct the address")
    if fault is Fault.DENIED:
        return AccessDenied(f"{said}; check the datastore's credentials and what they allow")
    if fault is Fault.EXPIRED:
        return CredentialsExpired(f"{said}; renew the datastore's credentials, then resume the job")
    if fault is Fault.SKEWED:
        return ClockSkewed(f"{said}; set this machine's clock (NTP), then resume the job")
    if fault is Fault.THROTTLED:
        return StorageThrottled(
            f"{said}; it refused again and again: use fewer workers, or wait; then resume the job"
        )
    if fault is Fault.TRANSIENT:
        return StorageUnavailable(f"{said}; check that the storage is up, then resume the job")
    return error if isinstance(error, OSError) else OSError(said)


def _one_line(error: BaseException) -> str:
    answer = answer_of(error)
    said = f"{type(error).__name__}: {error}" if answer is None else (
        f"{answer[0]} (HTTP {answer[1]}) {answer[2]}".rstrip()
    )
    return said.replace("\n", " ")[:500]


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and how long, a request is tried.

    Attributes:
        attempts_max: The first one included.
        first_wait_s: Upper bound of the first wait.
        wait_s_max: Upper bound of any wait.
        budget_s: No attempt begins later than this after the first.
    """

    attempts_max: int = ATTEMPTS_MAX
    first_wait_s: float = FIRST_WAIT_S
    wait_s_max: float = WAIT_S_MAX
    budget_s: float = BUDGET_S

    def waits(self, draw: Callable[[], float] = random.random) -> Iterator[float]:
        """Yield the seconds to wait before the second attempt, the third, and so on."""
        bound_s = self.first_wait_s
        for _ in range(self.attempts_max - 1):
            # Never next to nothing: what has just refused gets half of the bound at least.
            yield bound_s * (0.5 + draw() / 2)
            bound_s = min(2 * bound_s, self.wait_s_max)


_POLICY = RetryPolicy()


def is_retried(error: BaseException, *, may_refresh: bool) -> bool:
    """Return whether another attempt may succeed.

    Args:
        error: Of the last one.
        may_refresh: Whether expired credentials can be read anew, which is tried once.
    """
    fault = fault_of(error)
    return fault in (Fault.THROTTLED, Fault.TRANSIENT) or (fault is Fault.EXPIRED and may_refresh)


def retry(
    attempt: Callable[[], T], what: str, *, policy: RetryPolicy = _POLICY,
    refresh: Callable[[], None] | None = None, sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> T:
    """Return what `attempt()` returns, tried as the policy says; blocks.

    Args:
        attempt: One request, which may be repeated.
        what: What it does and to what, for the error's message.
        policy: How often and how long.
        refresh: Reads expired credentials anew; called once at most.
        sleep: Waits for so many seconds.
        now: A clock in seconds.

    Raises:
        Exception: As `named` returns it.
    """
    waits, until_s = policy.waits(), now() + policy.budget_s
    while True:
        try:
            return attempt()
        except Exception as error:
            wait_s = next(waits, math.inf)   # an endless wait is over the budget
            is_last = now() + wait_s > until_s
            if is_last or not is_retried(error, may_refresh=refresh is not None):
                final = named(error, what)
                if final is error:   # an error is never its own cause
                    raise
                raise final from error
            if refresh is not None and fault_of(error) is Fault.EXPIRED:
                refresh()
                refresh = None
        sleep(wait_s)


async def retry_async(
    attempt: Callable[[], Awaitable[T]], what: str, *,
    policy: RetryPolicy = _POLICY,
    refresh: Callable[[], Awaitable[None]] | None = None,
    now: Callable[[], float] = time.monotonic,
) -> T:
    """See `retry`; waits without blocking the loop."""
    import asyncio  # a tenth of a worker's start, for those who have no loop

    waits, until_s = policy.waits(), now() + policy.budget_s
    while True:
        try:
            return await attempt()
        except Exception as error:
            wait_s = next(waits, math.inf)   # an endless wait is over the budget
            is_last = now() + wait_s > until_s
            if is_last or not is_retried(error, may_refresh=refresh is not None):
                final = named(error, what)
                if final is error:   # an error is never its own cause
                    raise
                raise final from error
            if refresh is not None and fault_of(error) is Fault.EXPIRED:
                await refresh()
                refresh = None
        await asyncio.sleep(wait_s)
