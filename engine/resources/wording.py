"""How a value, a field path and a list of choices read in an error message.

Every function returns one printable line of bounded length: what a user wrote may hold newlines,
terminal escapes or a megabyte of text, and none of that may reach a terminal or a log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: Where a value stands: keys of mappings and indices of lists, outermost first.
FieldPath = tuple[str | int, ...]

#: Characters of a user's own text that a message repeats; enough to recognise it by.
SHOWN_CHARS_MAX = 60

#: Fields whose values are secrets; a message never repeats what stands in or below them.
SECRET_FIELDS = frozenset({"credentials", "secrets"})


def shown(value: object) -> str:
    """Return the value as a message may show it: short, on one line, in YAML's words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple | set):
        return "a list"
    if isinstance(value, str):
        return f"'{clipped(value)}'"
    if isinstance(value, int) and abs(value) >= 10**SHOWN_CHARS_MAX:
        return "a very large number"  # repr of an int of many digits is slow, or refused
    if isinstance(value, int | float):
        return repr(value)
    return f"an object of type {type(value).__name__}"


def clipped(text: str, chars_max: int = SHOWN_CHARS_MAX) -> str:
    """Return the text on one printable line, cut with "…" where it is longer."""
    short = text if len(text) <= chars_max else text[: chars_max - 1] + "…"
    return one_line(short)


def one_line(text: str) -> str:
    """Return the text with every unprintable character (newlines, escapes) written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def dotted(path: FieldPath) -> str:
    """Return `settings.retry_settings.timeout` or `routes[0].port` for a field path."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{clipped(step)}" if text else clipped(step)
    return text


def json_pointer(path: FieldPath) -> str:
    """Return the path as a JSON pointer (RFC 6901): `/properties/miniBatchSize`."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return "".join(f"/{clipped(step)}" for step in steps)


def any_of(choices: Iterable[str]) -> str:
    """Return `a, b or c`."""
    *head, last = choices
    return f"{', '.join(head)} or {last}" if head else last


def is_secret(path: FieldPath) -> bool:
    """Return whether the value at this path may be a secret."""
    return any(step in SECRET_FIELDS for step in path)
