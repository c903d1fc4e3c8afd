"""Load on a server: wrk, one thread, keep-alive connections, for some seconds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

#: wrk waits as long for one answer: MLflow and BentoML need it at c=64.
TIMEOUT_S = 20

_SCRIPT = """
wrk.method = "POST"
local file = io.open(%s, "rb")
wrk.body = file:read("*a")
file:close()
%s
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests": %%d, "us": %%d, "p50_us": %%d, "p99_us": %%d, "status": %%d, "lost": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True)
class Target:
    """Something that answers POST requests.

    Attributes:
        expected: What the answer has to be, or None.
    """

    name: str
    url: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    expected: object = None


@dataclass(frozen=True)
class Load:
    """What came of a load.

    Attributes:
        failed: Answers that are not 2xx, lost connections and time-outs.
    """

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failed: int


def check_wrk() -> None:
    """End the program where wrk is missing."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing, which makes the load: apt-get install wrk")


def drive(target: Target, connections: int, seconds: float, folder: Path) -> Load:
    """Put a load on a target; the folder takes wrk's script."""
    (folder / "body").write_bytes(target.body)
    headers = {"Content-Type": "application/json", **target.headers}
    lines = [
        f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()
    ]
    script = folder / "load.lua"
    script.write_text(_SCRIPT % (json.dumps(str(folder / "body")), "\n".join(lines)))
    output = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s",
         f"--timeout={TIMEOUT_S}s", "-s", str(script), target.url],
        capture_output=True, text=True, check=True,
    ).stdout
    found = json.loads(output.strip().splitlines()[-1])
    return Load(
        found["requests"] / (found["us"] / 1e6), found["p50_us"] / 1e3, found["p99_us"] / 1e3,
        found["status"] + found["lost"],
    )
