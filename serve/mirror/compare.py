"""How the answers of two deployments to one request differ. Pure."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from inferay.serve.mirror.bodies import Body

#: Kinds of difference, the gravest first.
STATUS = "status"
STRUCTURE = "structure"
VALUE = "value"
NUMBER = "number"
BYTES = "bytes"

_GRAVITY = {BYTES: 0, NUMBER: 1, VALUE: 2, STRUCTURE: 3, STATUS: 4}

#: Of a value that is shown where two answers differ.
SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class Tolerance:
    """How far two numbers may lie apart and still agree: whichever of both allows more."""

    absolute: float = 0.0
    relative: float = 0.0

    def allows(self, live: float, shadow: float) -> bool:
        """Return whether the numbers agree; NaN agrees with NaN, an infinity with itself."""
        if live == shadow or (live != live and shadow != shadow):
            return True
        if not (self.absolute or self.relative):
            return False
        left, right = as_float(live), as_float(shadow)
        if not (math.isfinite(left) and math.isfinite(right)):
            return False
        return math.isclose(left, right, rel_tol=self.relative, abs_tol=self.absolute)


@dataclass
class Comparison:
    """What two bodies have in common.

    Attributes:
        kind: The gravest difference; None if the bodies agree.
        path: Where the first difference of that kind is, or "".
        live: What stands there, for `told`; likewise `shadow`.
        largest: The greatest distance of two numbers; infinite if one of them is.
        numbers: (path, live, shadow) of all numbers that both bodies have.
    """

    kind: str | None = None
    path: str = ""
    live: Any = ""
    shadow: Any = ""
    largest: float = 0.0
    numbers: list[tuple[str, float, float]] = field(default_factory=list)

    def differ(self, kind: str, path: str, live: Any, shadow: Any) -> None:
        """Take note of a difference; the gravest kind stays, the first of its kind."""
        if self.kind is None or _GRAVITY[kind] > _GRAVITY[self.kind]:
            self.kind, self.path = kind, path
            self.live, self.shadow = live, shadow



def compare(live: Body, shadow: Body, tolerance: Tolerance) -> Comparison:
    """Compare two bodies: as JSON if both are, else byte for byte.

    A text that holds JSON is decoded once more where both answers are texts: a script that
    returns `json.dumps(...)` is encoded twice by the contract.
    """
    found = Comparison()
    try:
        left = _decoded(live)
        right = left if live.content == shadow.content else _decoded(shadow)
    except (ValueError, RecursionError):
        if (live.content, live.sha256) != (shadow.content, shadow.sha256):
            found.differ(BYTES, "", _shown(live), _shown(shadow))
        return found
    if isinstance(left, str) and isinstance(right, str):
        left, right = _decoded_again(left, right)
    _walk(left, right, tolerance, found)
    return found


def as_float(value: float) -> float:
    """Return a number of JSON as a float; an integer that is too large is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def shorten(text: str, characters_max: int = SHOWN_CHARACTERS) -> str:
    """Return a text of a bounded length."""
    return text if len(text) <= characters_max else f"{text[:characters_max]}…"


def told(value: Any) -> str:
    """Return what people are told of a value of JSON; halves of a UTF-16 pair as escapes."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        said = f"an object with {', '.join(sorted(value)) or 'nothing'}"
    else:
        said = value if isinstance(value, str) else json.dumps(value)
    return shorten(said.encode(errors="backslashreplace").decode())


def _shown(body: Body) -> str:
    if isinstance(body.content, str):
        return body.content
    return f"{body.size_bytes} bytes"


def _decoded(body: Body) -> Any:
    if not isinstance(body.content, str):
        raise ValueError("not the text of JSON")
    return json.loads(body.content)


def _decoded_again(left: str, right: str) -> tuple[Any, Any]:
    try:
        return json.loads(left), json.loads(right)
    except (ValueError, RecursionError):
        return left, right


def _walk(left: Any, right: Any, tolerance: Tolerance, found: Comparison) -> None:
    """Compare two values of JSON, in their order; without recursion: users nest as they like."""
    waiting = [("$", left, right)]
    while waiting:
        path, live, shadow = waiting.pop()
        if _is_number(live) and _is_number(shadow):
            _compare_numbers(path, live, shadow, tolerance, found)
        elif type(live) is not type(shadow):
            found.differ(STRUCTURE, path, live, shadow)
        elif isinstance(live, list):
            if len(live) != len(shadow):
                found.differ(STRUCTURE, path, live, shadow)
            inner = f"{path}[*]"
            pairs = list(zip(live, shadow, strict=False))
            waiting += [(inner, one, other) for one, other in reversed(pairs)]
        elif isinstance(live, dict):
            if live.keys() != shadow.keys():
                found.differ(STRUCTURE, path, live, shadow)
            waiting += [
                (_below(path, key), live[key], shadow[key])
                for key in reversed(live) if key in shadow
            ]
        elif live != shadow:
            found.differ(VALUE, path, live, shadow)


def _compare_numbers(
    path: str, live: float, shadow: float, tolerance: Tolerance, found: Comparison
) -> None:
    left, right = as_float(live), as_float(shadow)
    found.numbers.append((path, left, right))
    if tolerance.allows(live, shadow):
        return
    found.differ(NUMBER, path, live, shadow)
    distance = abs(left - right)
    found.largest = max(found.largest, math.inf if distance != distance else distance)


def _is_number(value: Any) -> bool:
    return type(value) is float or type(value) is int   # True is 1, but no number


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if key.isidentifier() else f"{path}[{json.dumps(key)}]"
