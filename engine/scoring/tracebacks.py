"""A user's exception as text: their frames, with paths as they know them, and none of ours."""

from __future__ import annotations

import traceback
from pathlib import Path

import inferay

_OURS = tuple(str(Path(root)) + "/" for root in inferay.__path__)

#: Of a longer traceback (deep recursion, a huge message) the middle is left out.
TRACEBACK_CHARS_MAX = 16_384

#: Of a longer message (one that holds the data, say) the rest is left out.
EXCEPTION_CHARS_MAX = 2_048


def describe_exception(error: BaseException) -> str:
    """Return one line: `module.Class: message`, builtins without their module."""
    cls = type(error)
    name = cls.__qualname__
    if cls.__module__ not in ("builtins", "__main__"):
        name = f"{cls.__module__}.{name}"
    try:
        message = " ".join(str(error).split())
    except Exception:   # the class is the user's, and so is its __str__
        message = "(its text cannot be shown)"
    if len(message) > EXCEPTION_CHARS_MAX:
        message = f"{message[:EXCEPTION_CHARS_MAX]} …"
    return f"{name}: {message}" if message else name


def user_traceback(error: BaseException, code_dir: Path) -> str:
    """Return the traceback without frames of ours, paths relative to the user's code folder."""
    shown = traceback.TracebackException.from_exception(error)
    chain = [shown]
    while chain:
        one = chain.pop()
        one.stack[:] = [frame for frame in one.stack if not _is_ours(frame.filename)]
        inner = (one.__cause__, one.__context__, *(one.exceptions or ()))
        chain += [other for other in inner if other is not None]
    text = "".join(shown.format())
    for folder in {str(code_dir), str(code_dir.resolve())}:
        text = text.replace(f'File "{folder}/', 'File "')
    if len(text) > TRACEBACK_CHARS_MAX:
        half = TRACEBACK_CHARS_MAX // 2
        text = f"{text[:half]}\n  … {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text


def _is_ours(filename: str) -> bool:
    return filename.startswith(_OURS) or filename.startswith("<frozen importlib")
