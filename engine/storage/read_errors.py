"""How an input that cannot be read is named.

About one file are `InputMissing`, `InputChanged` and `InputUnreadable`: a `ReadError`. What every
file of the input would meet (credentials, bucket, an outage) is an error of `retries`, or of
`addresses`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from inferay.engine.storage.addresses import AddressRefusedError, refusal
from inferay.engine.storage.retries import AccessDenied, BucketMissing, answer_of
from inferay.engine.storage.uris import redacted
from inferay.errors import InferayError, InvalidInput

#: What aiohttp raises for what no other attempt changes.
_LASTING = {
    "InvalidURL": "its URL cannot be asked for",
    "TooManyRedirects": "the server redirects too often",
    "ClientConnectorCertificateError": "the server's certificate is not trusted",
}

#: S3's codes for an object that these credentials may not read, though others they may.
_DENIED_CODES = ("AccessDenied", "403", "Forbidden", "InvalidObjectState")

#: What the disk says that a file is fetched to, and no fault of the file.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class ReadError(InvalidInput):
    """Raised when one file cannot be read, or is not what was listed."""

    code = "InputUnreadable"


class HttpStatusError(Exception):
    """Raised for an answer that is no success; `retries` looks at its status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answers with status {status}")
        self.status = status


def changed(uri: str, what: str) -> ReadError:
    """Return the error of a file that is not what was listed."""
    return ReadError(
        f"{redacted(uri)} has changed since the input was listed: {what}", code="InputChanged",
    )


def lasting(uri: str, error: BaseException) -> InferayError | None:
    """Return the error of a connection that no other attempt would make, or None."""
    for one in _chain(error):
        if isinstance(one, AddressRefusedError):
            return refusal(redacted(uri))
        said = next((_LASTING[c.__name__] for c in type(one).__mro__ if c.__name__ in _LASTING), "")
        if said:
            return ReadError(f"cannot read {redacted(uri)}: {said}")
    return None


def of_file(uri: str, error: Exception) -> Exception:
    """Return the error as it is about one file, or as it is where all files would meet it."""
    shown = redacted(uri)
    codes = [_code(one) for one in _chain(error)]
    if "NoSuchBucket" in codes or "ContainerNotFound" in codes:
        what = "bucket" if "NoSuchBucket" in codes else "container"
        return BucketMissing(f"{shown}: there is no such {what}; create it, or correct the address")
    if isinstance(error, FileNotFoundError):
        return ReadError(f"{shown} does not exist", code="InputMissing", target=shown)
    if "InvalidRange" in codes or "416" in codes:
        return changed(uri, "it is shorter")
    if isinstance(error, AccessDenied) and any(code in _DENIED_CODES for code in codes):
        # Without the name: where it is the same for every file, the job stops early.
        return ReadError("access to the file is denied; check what the credentials allow")
    if isinstance(error, OSError) and error.errno not in _DISK_FULL:
        return ReadError(str(error), target=shown)
    return error


def _code(error: BaseException) -> str:
    if isinstance(error, HttpStatusError):
        return str(error.status)
    answer = answer_of(error)
    return answer[0] if answer is not None else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the exception, what it carries, and what it came from."""
    while error is not None:
        yield error
        carried = getattr(error, "os_error", None)
        if isinstance(carried, BaseException):
            yield carried
        error = error.__cause__ or error.__context__
