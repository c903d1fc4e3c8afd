"""A shadow report as text for a terminal."""

from __future__ import annotations

from typing import Any

from inferay.cli.output import table

#: Of a body or value in the table of the worst pairs.
VALUE_CHARS_MAX = 60

#: Outputs of the drift table: a report with more is read with `-o json`.
DRIFT_MAX = 20

#: Replicas tell their counts with each announcement, so the newest pairs may not be among them.
COUNTS_AGE = "as counted up to 2 s ago"


def render(report: dict[str, Any]) -> str:
    """Return the report as lines: agreement, drift, latency, errors, what was not seen."""
    lines = [f"live {report['live']}, shadow {report['shadow']}: {report['pairs']} pairs"]
    if report["reason"]:
        return "\n".join([*lines, report["reason"]])
    lines += [
        f"agreement    {_share(report['agreement'])}",
        *(f"             {count} differ in {kind}"
          for kind, count in report["differences"].items()),
        f"errors       live {_share(report['errors']['live'])}, "
        f"shadow {_share(report['errors']['shadow'])}",
    ]
    took = report["took"]
    if took:
        lines.append(
            f"latency      p50 {_ms(took['liveP50S'])} → {_ms(took['shadowP50S'])}, "
            f"p99 {_ms(took['liveP99S'])} → {_ms(took['shadowP99S'])}, median difference "
            f"{_ms(took['medianDifferenceS'])}{_interval(took['medianDifferenceInterval'], _ms)}"
        )
    lines += [*_drift(report["drift"]), *_copies(report["copies"]), *_worst(report["worst"])]
    return "\n".join(lines)


def _share(share: dict[str, Any]) -> str:
    if share["rate"] is None:
        return "unknown"
    return (f"{share['rate']:.2%} ({share['count']} of {share['of']})"
            f"{_interval(share['interval'], '{:.2%}'.format)}")


def _interval(interval: dict[str, Any] | None, write: Any) -> str:
    if interval is None:
        return ""
    return f" [{write(interval['low'])}, {write(interval['high'])}]"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _drift(drift: list[dict[str, Any]]) -> list[str]:
    if not drift:
        return []
    rows = [{
        "output": one["path"],
        "live_mean": _number(one["liveMean"]),
        "shadow_mean": _number(one["shadowMean"]),
        "mean_difference": _number(one["meanDifference"])
        + _interval(one["meanDifferenceInterval"], _number),
        "mean_distance": _number(one["meanDistance"]),
        "max_distance": _number(one["maxDistance"]),
    } for one in drift[:DRIFT_MAX]]
    lines = ["drift of numbers", *(f"  {line}" for line in table(rows).splitlines())]
    if len(drift) > DRIFT_MAX:
        lines.append(f"  and {len(drift) - DRIFT_MAX} more outputs (-o json)")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _copies(copies: dict[str, Any]) -> list[str]:
    lost = {**copies["dropped"], **copies["failed"]}
    said = ", ".join(f"{count} {reason}" for reason, count in lost.items() if count)
    return [f"copies       {copies['offered']} offered, {copies['answered']} answered"
            + (f"; not: {said}" if said else "") + f" ({COUNTS_AGE})"]


def _worst(worst: list[dict[str, Any]]) -> list[str]:
    if not worst:
        return []
    lines = ["worst pairs"]
    for one in worst:
        lines.append(
            f"  {one['requestId']}  {one['difference']} {one['path']}: "
            f"{_clipped(one['liveValue'])} → {_clipped(one['shadowValue'])}  "
            f"request {_clipped(one['request'])}"
        )
    return lines


def _clipped(text: str) -> str:
    return text if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}…"
