"""A job as `job show -o table` shows it: what matters first, in groups, then its workers."""

from __future__ import annotations

from typing import Any

from inferay.cli.output import render


def describe(job: dict[str, Any]) -> str:
    """Return the job as text that ends with a newline; `job` is what `-o json` shows."""
    progress: dict[str, Any] = job.get("progress") or {}
    lines = [_line("Job", f"{job['name']}: {job['status']}"),
             _line("Endpoint", f"{job['endpoint_name']}/{job['deployment_name']}")]
    if progress.get("mini_batches"):
        lines += _progress(progress)
    waiting = job.get("waiting_for")
    if waiting:
        lines.append(_line("Waiting", waiting.removeprefix("waiting for ")))
    if progress.get("worker_seconds"):
        lines += _workers(progress)
    if job.get("resumes"):
        lines.append(_line("Resumes", str(job["resumes"])))
    if job.get("error"):
        lines.append(_line("Error", job["error"]["message"]))
    lines.append(_line("Output", job["outputs"]["score"]["path"]))
    text = "".join(f"{line}\n" for line in lines)
    for title, rows in (
        ("Workers", [_worker(one) for one in progress.get("workers") or []]),
        ("Slowest mini-batches", [_slow(one) for one in progress.get("slowest") or []]),
    ):
        if rows:
            text += f"\n{title}\n{render(rows, 'table')}"
    return text


def _line(title: str, text: str) -> str:
    return f"{title:<10} {text}"


def _progress(progress: dict[str, Any]) -> list[str]:
    counts = progress["counts"]
    rate = (
        f"{progress.get('items_per_s_now', 0.0):,.1f} items/s now, "
        f"{progress['items_per_s']:,.1f} overall"
    )
    if progress.get("seconds") is not None:
        rate += f"; {progress['seconds']:,.0f} s so far"
    if progress.get("seconds_left") is not None:
        rate += f", {progress['seconds_left']:,.0f} s left"
    return [
        _line("Progress", f"{progress.get('percent', 0)} %, {counts['mini_batches_done']:,} of "
              f"{progress['mini_batches']:,} mini-batches; {counts['items_ok']:,} items ok, "
              f"{counts['items_failed']:,} failed, {counts['rows']:,} rows"),
        _line("Rate", rate),
    ]


def _workers(progress: dict[str, Any]) -> list[str]:
    states = progress["workers_by_state"]
    told = ", ".join(f"{number} {state}" for state, number in states.items() if number)
    counts = progress["counts"]
    deaths = ", ".join(f"{one['count']} {one['kind']}" for one in progress["deaths_by_kind"])
    lines = [_line("Workers", f"{progress['workers_wanted']} at most: {told}")]
    if counts["retries"] or deaths:
        lines.append(_line("Retries", f"{counts['retries']}; workers that ended: {deaths or 0}"))
    seconds = progress["worker_seconds"]
    total = sum(seconds.values())
    if total > 0:
        shares = ", ".join(f"{name} {100 * value / total:.1f} %" for name, value in seconds.items())
        lines.append(_line("Time", f"{shares} of {total:,.0f} s of workers, of this epoch"))
    return lines


def _worker(one: dict[str, Any]) -> dict[str, Any]:
    lease, since_s = one["lease"], one["lease_seconds"]
    in_hand = None if lease is None else f"{lease[0]} to {lease[1] - 1}"
    if one["in_hand"] is not None:
        in_hand, since_s = one["in_hand"], one["in_hand_seconds"]
    memory = one["memory_bytes"]
    return {
        "worker": one["slot"], "node": one["node"], "state": one["state"],
        "mini_batch": in_hand, "since_s": since_s, "done": one["mini_batches_done"],
        "restarts": one["restarts"],
        "memory": None if memory is None else f"{memory / 2**20:,.0f} MiB",
    }


def _slow(one: dict[str, Any]) -> dict[str, Any]:
    return {"mini_batch": one["mini_batch"], "seconds": one["seconds"], "worker": one["slot"],
            "node": one["node"]}
