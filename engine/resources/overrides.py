"""`--set a.b=c` and the CLI's flags: parsing them, and putting them into the data of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferay.engine.resources.wording import (
    FieldPath,
    clipped,
    dotted,
    is_secret,
    one_line,
    shown,
)
from inferay.engine.resources.yaml_source import parse_yaml_value
from inferay.errors import InvalidInput

#: Steps of one path; the deepest field of any entity has five.
STEPS_MAX = 20
_STEP = re.compile(r'"(?P<quoted>[^"]*)"|\[(?P<index>[0-9]{1,6})\]|(?P<plain>[^.\[\]"=]+)')


@dataclass(frozen=True)
class Override:
    """One value from the command line.

    Attributes:
        path: Where it goes.
        value: Plain data, or an entity.
        text: The scalar as it was typed, if it is one.
        place: How a message names it: `--set a.b=c` or `--name`.
    """

    path: FieldPath
    value: Any
    text: str | None
    place: str


def parse_override(assignment: str) -> Override:
    """Return what `a.b=c` sets.

    A key may stand in double quotes (`tags."a.b"=c`), and `[0]` or `.0` is an item of a list.

    Raises:
        InvalidInput: There is no `=`, a step is malformed, or the value is not valid YAML.
    """
    path, rest = _parse_path(assignment)
    if not path or not rest.startswith("="):
        key = clipped(assignment.partition("=")[0])
        raise InvalidInput(f"--set {key}: expected --set FIELD.FIELD=VALUE", target="--set")
    place = f"--set {dotted(path)}={'***' if _hides(path) else clipped(rest[1:])}"
    try:
        value, text = parse_yaml_value(rest[1:], "value")
    except InvalidInput as error:
        reason = "" if _hides(path) else f" ({error})"
        raise InvalidInput(
            f"{one_line(place)}: expected a YAML scalar, list or mapping{reason}", target="--set"
        ) from None
    return Override(path, value, text, place)


def flag_override(field: str, value: object) -> Override:
    """Return what a flag sets; `settings.mini_batch_size` is named `--mini-batch-size`.

    Raises:
        InvalidInput: The field is no dotted path.
    """
    path, rest = _parse_path(field)
    if not path or rest:
        raise InvalidInput(f"{shown(field)}: expected a field such as settings.mini_batch_size")
    name = str(path[-1]).replace("_", "-")
    return Override(path, value, None, f"--{clipped(name)}")


def assign(data: dict[str, Any], override: Override) -> None:
    """Put the value into the data, in place; mappings on the way are made where missing.

    Raises:
        InvalidInput: A step leads into something that has no fields, or past a list's end.
    """
    target: Any = data
    for depth, step in enumerate(override.path[:-1]):
        inner = _get(target, step)
        if inner is None:
            inner = {}
            _put(target, step, inner, override)
        if not isinstance(inner, dict | list):
            found = "a value" if is_secret(override.path) else shown(inner)
            raise InvalidInput(
                f"{override.place}: {dotted(override.path[: depth + 1])} is {found}, "
                "expected fields",
                target=dotted(override.path),
            )
        target = inner
    _put(target, override.path[-1], override.value, override)


def _parse_path(text: str) -> tuple[FieldPath, str]:
    """Return the steps at the start of the text, and the rest after them."""
    steps: list[str | int] = []
    position = 0
    while len(steps) < STEPS_MAX:
        match = _STEP.match(text, position)
        if match is None:
            return (), text
        if match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(match["quoted"] if match["quoted"] is not None else match["plain"])
        position = match.end()
        if text[position : position + 1] == ".":
            position += 1
        elif text[position : position + 1] != "[":
            return tuple(steps), text[position:]
    return (), text


def _hides(path: FieldPath) -> bool:
    """Whether the value may be a secret: credentials, and variables that are named like one."""
    words = ("secret", "password", "token", "key", "credential")
    return is_secret(path) or any(word in str(path[-1]).lower() for word in words)


def _get(target: Mapping[str, Any] | Sequence[Any], step: str | int) -> Any:
    if isinstance(target, Mapping):
        return target.get(str(step))
    index = _index(step)
    return target[index] if index is not None and index < len(target) else None


def _put(target: Any, step: str | int, value: object, override: Override) -> None:
    if isinstance(target, dict):
        target[str(step)] = value
        return
    index = _index(step)
    if index is None or index > len(target):
        raise InvalidInput(
            f"{override.place}: expected an index from 0 to {len(target)}, got {shown(str(step))}",
            target=dotted(override.path),
        )
    target[index : index + 1] = [value]


def _index(step: str | int) -> int | None:
    if isinstance(step, int):
        return step
    return int(step) if step.isascii() and step.isdigit() and len(step) < 7 else None
