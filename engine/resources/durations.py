"""ISO 8601 durations, as Azure's REST bodies have them, and seconds.

Years and months are refused: their length is not fixed.
"""

from __future__ import annotations

import re
from decimal import Decimal

from inferay.engine.resources.wording import shown
from inferay.errors import InvalidInput

_DURATION = re.compile(
    r"P(?=.)(?:(?P<weeks>\d{1,9})W)?(?:(?P<days>\d{1,9})D)?"
    r"(?:T(?=.)(?:(?P<hours>\d{1,9})H)?(?:(?P<minutes>\d{1,9})M)?"
    r"(?:(?P<seconds>\d{1,12}(?:[.,]\d{1,9})?)S)?)?",
    re.ASCII,
)
_SECONDS = {"weeks": 604800, "days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


def parse_duration(text: str) -> float:
    """Return the seconds of `PT30S`, `PT5M`, `P1DT2H`, `PT0.5S`.

    Raises:
        InvalidInput: It is no such duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidInput(f"expected an ISO 8601 duration such as PT30S, got {shown(text)}")
    parts = {name: value.replace(",", ".") for name, value in match.groupdict("0").items()}
    return float(sum(Decimal(parts[name]) * factor for name, factor in _SECONDS.items()))


def format_duration(seconds: float) -> str:
    """Return the shortest duration: 30 is `PT30S`, 300 `PT5M`, 0 `PT0S`; to the microsecond."""
    if seconds < 0:
        raise ValueError("a duration is not negative")
    microseconds = round(Decimal(seconds) * 1_000_000)
    whole, fraction = divmod(int(microseconds), 1_000_000)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    second = f"{rest}.{fraction:06d}".rstrip("0") if fraction else str(rest)
    time = "".join(
        f"{value}{unit}"
        for value, unit in ((hours, "H"), (minutes, "M"), (second, "S"))
        if value not in (0, "0")
    )
    day = f"{days}D" if days else ""
    return f"P{day}T{time}" if time else f"P{day}" if day else "PT0S"
