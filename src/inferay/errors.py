"""Every error that inferay raises on purpose, and the exit code or HTTP status class of each.

    InferayError
    ├── InvalidInput            what was handed in is wrong; nothing was sent or changed
    ├── NotFound                a named thing does not exist
    ├── Conflict                it exists already, or with other content, or is busy
    ├── NotAuthorized           no credential, or one that does not reach this far
    ├── Unavailable             a part of the system does not answer (in time)
    ├── UserCodeError           the user's own code failed; carries the user's own traceback
    └── JobError                a job ended without completing; carries its recorded reason

Classes take facts and compose the message: what happened, to what, what to do next. They know
nothing of HTTP or of a terminal: `EXIT_CODES` (here, because the CLI and the job driver share it)
and the control plane's status table map them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class InferayError(Exception):
    """Something inferay can explain: a message of one line, a stable code, and what it is about.

    Attributes:
        code: A stable word for programs, such as `NoInput`.
        message: What happened, to what, and what to do next, in one line.
        target: The field, file or resource that it is about, or None.
        details: Further lines for a person, such as the user's own traceback.
    """

    code = "Error"

    def __init__(
        self, message: str, *, code: str | None = None, target: str | None = None,
        details: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.target = target
        self.details = details

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.code, self.target, self.details)

    def as_dict(self) -> dict[str, Any]:
        """Return Azure's error object: code, message, target, details."""
        details = [] if self.details is None else [{"code": "Detail", "message": self.details}]
        return {
            "code": self.code, "message": self.message, "target": self.target, "details": details,
        }


def _rebuild(
    cls: type[InferayError], message: str, code: str, target: str | None, details: str | None
) -> InferayError:
    error = cls.__new__(cls)
    InferayError.__init__(error, message, code=code, target=target, details=details)
    return error


class InvalidInput(InferayError):
    """Raised when a file, flag, field or path is wrong; nothing was sent or changed."""

    code = "InvalidInput"


class NotFound(InferayError):
    """Raised when a named resource does not exist."""

    code = "NotFound"


class Conflict(InferayError):
    """Raised when something exists already, differs from what was there, or is busy."""

    code = "Conflict"


class NotAuthorized(InferayError):
    """Raised when a credential is missing, wrong, or does not reach this far."""

    code = "NotAuthorized"


class Unavailable(InferayError):
    """Raised when a part of the system does not answer, or not in time."""

    code = "Unavailable"


class UserCodeError(InferayError):
    """Raised when the user's own code failed; `details` is the user's own traceback."""

    code = "UserScriptError"


class JobError(InferayError):
    """Raised when a job ended without completing; `code` is its recorded reason."""

    code = "JobFailed"


#: What a command line ends with. The most specific class wins.
EXIT_CODES: dict[type[InferayError], int] = {
    InferayError: 1,
    InvalidInput: 2,
    NotFound: 3,
    Conflict: 4,
    NotAuthorized: 5,
    Unavailable: 6,
    UserCodeError: 1,
    JobError: 1,
}

#: Exit code of a command that Ctrl-C ended.
EXIT_INTERRUPTED = 130


def exit_code(error: InferayError) -> int:
    """Return the exit code that a command ends with for this error."""
    return next(EXIT_CODES[cls] for cls in type(error).__mro__ if cls in EXIT_CODES)


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest of the valid names, or ""."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""
