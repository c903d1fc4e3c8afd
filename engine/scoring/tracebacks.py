"""A user's exception as text: their frames, with paths as they know them, and none of ours."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

import inferay

_OURS = tuple(str(Path(root)) + "/" for root in inferay.__path__)

#: Of a longer traceback (deep recursion, a huge message) the middle is left out.
TRACEBACK_CHARS_MAX = 16_384


def describe_exception(error: BaseException) -> str:
    """Return one line: `module.Class: message`, builtins without their module."""
    cls = type(error)
    name = cls.__qualname__
    if cls.__module__ not in ("builtins", "__main__"):
        name = f"{cls.__module__}.{name}"
    message = " ".join(str(error).split())
    return f"{name}: {message}" if message else name


def user_traceback(error: BaseException, code_dir: Path) -> str:
    """Return the traceback from the user's first frame on, paths relative to their code folder."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        current.__traceback__ = _without_ours(current.__traceback__)
        current = current.__cause__ or current.__context__
    text = "".join(traceback.format_exception(error))
    for folder in {str(code_dir), str(code_dir.resolve())}:
        text = text.replace(f'File "{folder}/', 'File "')
    if len(text) > TRACEBACK_CHARS_MAX:
        half = TRACEBACK_CHARS_MAX // 2
        text = f"{text[:half]}\n  … {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text


def _without_ours(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and _is_ours(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    return tb


def _is_ours(filename: str) -> bool:
    return filename.startswith(_OURS) or filename.startswith("<frozen importlib")
