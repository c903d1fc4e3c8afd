"""What it means that something remote could not be read: one error class, with a code and a cause.

`InputMissing` and `InputChanged` are about one file, `InputUnreadable` too; `InputDenied` is about
credentials, bucket or address, and every file of the input would meet it.
"""

from __future__ import annotations

from typing import Any

from inferay.engine.storage.addresses import AddressRefusedError, refusal
from inferay.engine.storage.uris import redacted
from inferay.errors import InferayError

#: Statuses that another attempt may not meet: too many requests, or the server's own trouble.
TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)

#: S3's codes for what passes: an expired token may have been renewed by its provider meanwhile.
_TRANSIENT_CODES = (
    "ExpiredToken", "ExpiredTokenException", "InternalError", "RequestTimeout", "SlowDown",
    "ServiceUnavailable", "Throttling", "ThrottlingException", "TooManyRequests",
)

#: S3's codes for what no file of the bucket escapes, and what to look at.
_DENIED_CODES = {
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret access key is wrong",
    "InvalidToken": "the session token is wrong",
    "ExpiredToken": "the session token has expired",
    "ExpiredTokenException": "the session token has expired",
    "RequestTimeTooSkewed": "this machine's clock is wrong",
    "NoSuchBucket": "there is no such bucket",
    "InvalidBucketName": "no bucket can have that name",
    "PermanentRedirect": "the bucket is in another region, or behind another endpoint",
    "AuthorizationHeaderMalformed": "the bucket is in another region",
}


class ReadError(InferayError):
    """Raised when something remote cannot be read.

    Attributes:
        is_transient: Whether another attempt may succeed.
    """

    code = "InputUnreadable"

    def __init__(
        self, uri: str, reason: str, *, code: str = "InputUnreadable", is_transient: bool = False
    ) -> None:
        shown = redacted(uri)
        super().__init__(f"cannot read {shown}: {reason}", code=code, target=shown)
        self.is_transient = is_transient


def changed(uri: str, what: str) -> ReadError:
    """Return the error of a file that is not what was listed."""
    return ReadError(uri, f"it has changed since the input was listed ({what})",
                     code="InputChanged")


def of_status(uri: str, status: int) -> ReadError:
    """Return the error that an http status is."""
    if status in (404, 410):
        return ReadError(uri, "it does not exist", code="InputMissing")
    if status in (401, 403):
        return ReadError(uri, f"access is denied (status {status})")
    return ReadError(
        uri, f"the server answers with status {status}", is_transient=status in TRANSIENT_STATUSES
    )


def of_exception(uri: str, error: BaseException) -> InferayError:
    """Return the error that an exception of a client (botocore, aiohttp, a socket) is."""
    if isinstance(error, InferayError):
        return error
    chain = list(_chain(error))
    if any(isinstance(one, AddressRefusedError) for one in chain):
        return refusal(redacted(uri))
    for one in chain:
        response = getattr(one, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return _of_s3(uri, response)
    names = {cls.__name__ for one in chain for cls in type(one).__mro__}
    if names & {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"}:
        return ReadError(
            uri, "no credentials were found; give them to a datastore of type s3, or set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", code="InputDenied",
        )
    said = next((text for one in chain if (text := str(one).strip())), type(error).__name__)
    lasting = {"InvalidURL", "TooManyRedirects", "ClientConnectorCertificateError",
               "ParamValidationError", "InvalidEndpointDiscoveryConfigurationError"}
    return ReadError(uri, " ".join(redacted(said).split()), is_transient=not names & lasting)


def _of_s3(uri: str, response: dict[str, Any]) -> ReadError:
    code = str(response["Error"].get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    is_transient = code in _TRANSIENT_CODES or status in TRANSIENT_STATUSES
    if code in _DENIED_CODES:
        return ReadError(
            uri, f"{_DENIED_CODES[code]} ({code})", code="InputDenied", is_transient=is_transient
        )
    if code in ("NoSuchKey", "404", "NotFound"):
        return ReadError(uri, "it does not exist", code="InputMissing")
    if code in ("AccessDenied", "403", "Forbidden"):
        return ReadError(uri, "access is denied")
    return ReadError(uri, f"the store answers {code} (status {status})", is_transient=is_transient)


def _chain(error: BaseException | None) -> Any:
    """Yield the exception, what it carries, and what it came from."""
    while error is not None:
        yield error
        carried = getattr(error, "os_error", None)
        if isinstance(carried, BaseException):
            yield carried
        error = error.__cause__ or error.__context__
