"""`make overload`: ten times what a deployment takes, 500 slow clients, a body of 1 GB in chunks.

Exits with 0 only if every line of the table is within its limit.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.chaos.results import commit
from tests.edges import wait_until
from tests.soak.load import OpenLoad
from tests.soak.record import add_rows
from tests.soak.stage import Stage, listener

#: Two places of 50 ms each are 40 requests per second.
SETTINGS = (
    "instance_count=1", "request_settings.max_concurrent_requests_per_instance=2",
    "request_settings.max_queue_wait_ms=500", "environment_variables.PAUSE_S=0.05",
)
QUEUE_WAIT_MS = 500.0
CAPACITY = 40

#: Of the load that nothing hinders; enough requests for a 99th percentile.
CALM_RATE = CAPACITY / 2
CALM_S = 15.0

SLOW_CLIENTS = 500

CHUNK = b"x" * (1 << 20)

TITLE = "## Online endpoint under overload"
_HEAD = f"""{TITLE}

`make overload`: one instance that takes 40 requests per second (two at once, 50 ms each,
`max_queue_wait_ms` 500) behind the edge over TLS; an open load in a process of this machine.

| commit | what | seen | limit | within |
|---|---|---|---|---|
"""

#: What was measured, what was seen, the limit as text, whether it is kept.
Row = tuple[str, str, str, bool]


class Overload:
    """The loads, one after another, on a stage."""

    def __init__(self, stage: Stage, key: str) -> None:
        self._stage = stage
        self._key = key
        self._calm_p99_ms = 0.0

    def rows(self, seconds: float) -> Iterator[Row]:
        """Put on every load; give what was seen."""
        calm = self._calm(CALM_S)
        self._calm_p99_ms = calm.tally.percentile_ms(0.99)
        yield (f"{CALM_RATE:g} requests/s", f"p50 {calm.tally.percentile_ms(0.5):.0f} ms, "
               f"p99 {self._calm_p99_ms:.0f} ms", "-", set(calm.tally.outcomes) == {"200"})
        yield from self._overload(seconds)
        yield from self._slow_clients()
        yield self._endless_body()

    def _load(self, rate: float) -> OpenLoad:
        return OpenLoad(
            self._stage.port, self._stage.workspace.ca_certificate, "/endpoints/soak/score",
            lambda: self._key, rate,
        )

    def _calm(self, seconds: float) -> OpenLoad:
        with self._load(CALM_RATE) as load:
            time.sleep(seconds)
        return load

    def _overload(self, seconds: float) -> Iterator[Row]:
        name = f"{10 * CAPACITY} requests/s for {seconds:g} s"
        with self._load(10 * CAPACITY) as load:
            time.sleep(seconds / 6)
            before_mb = self._memory_mb()
            time.sleep(seconds * 5 / 6)
            after_mb = self._memory_mb()
        tally = load.tally
        good, refused = tally.outcomes["200"], tally.outcomes["429"]
        limit_ms = 2 * self._calm_p99_ms + QUEUE_WAIT_MS
        p99_ms, slowest_ms = tally.percentile_ms(0.99), max(tally.refused_s) * 1e3
        yield (f"{name}: accepted", f"{good / seconds:.1f} requests/s, p99 {p99_ms:.0f} ms",
               f"p99 {limit_ms:.0f} ms", p99_ms <= limit_ms)
        yield (f"{name}: the rest",
               f"{refused} times 429, at the latest after {slowest_ms:.0f} ms, Retry-After "
               f"{', '.join(sorted(tally.retry_after))}; {dict(tally.outcomes)}",
               f"{QUEUE_WAIT_MS:g} ms; nothing else", slowest_ms <= QUEUE_WAIT_MS
               and tally.outcomes.total() == good + refused and "" not in tally.retry_after)
        for what, mb in after_mb.items():
            yield (f"{name}: memory of the {what}, after a sixth and at the end",
                   f"{before_mb[what]:.1f} and {mb:.1f} MB", "10 MB more",
                   mb - before_mb[what] < 10)
        after = self._calm(5.0).tally
        yield (f"{CALM_RATE:g} requests/s in the 5 s after it",
               f"{dict(after.outcomes)}, p99 {after.percentile_ms(0.99):.0f} ms",
               f"200 only, p99 {2 * self._calm_p99_ms:.0f} ms",
               set(after.outcomes) == {"200"}
               and after.percentile_ms(0.99) < 2 * self._calm_p99_ms)

    def _memory_mb(self) -> dict[str, float]:
        edge = self._stage.edge()
        haproxy = psutil.Process(int(edge.haproxy["pid"]))
        [(_, port)] = self._stage.up("blue")
        found = {"replica": [psutil.Process(listener(port))],
                 "HAProxy": [haproxy, *haproxy.children()]}
        return {
            name: sum(one.memory_info().rss for one in each) / 1e6 for name, each in found.items()
        }

    def _slow_clients(self) -> Iterator[Row]:
        head = ("POST /endpoints/soak/score HTTP/1.1\r\nhost: x\r\n"
                f"authorization: Bearer {self._key}\r\n")
        starts = ["POST /endp", head, f"{head}content-length: 100\r\n\r\nhalf"]
        opened: dict[ssl.SSLSocket, float] = {}
        lasted_s: list[float] = []

        def look() -> bool:
            for connection, began_s in list(opened.items()):
                if _is_closed(connection):
                    lasted_s.append(time.monotonic() - began_s)
                    connection.close()
                    del opened[connection]
            return not opened

        with self._load(CALM_RATE) as load:
            for number in range(SLOW_CLIENTS):
                connection = self._connect()
                connection.sendall(starts[number % len(starts)].encode())
                connection.setblocking(False)
                opened[connection] = time.monotonic()
                time.sleep(0.01)   # a rate at which the clients' own handshakes are not the load
            wait_until(look, "slow clients to be cut off", 30)
        tally = load.tally
        p99_ms = tally.percentile_ms(0.99)
        yield (f"{SLOW_CLIENTS} slow clients (half a request line, of headers, of a body)",
               f"closed at the latest after {max(lasted_s):.1f} s", "15 s", max(lasted_s) < 15)
        yield (f"{CALM_RATE:g} requests/s beside them",
               f"{dict(tally.outcomes)}, p99 {p99_ms:.0f} ms",
               f"200 only, p99 {2 * self._calm_p99_ms:.0f} ms",
               set(tally.outcomes) == {"200"} and p99_ms < 2 * self._calm_p99_ms)

    def _endless_body(self) -> Row:
        with self._connect() as connection:
            connection.sendall((
                "POST /endpoints/soak/score HTTP/1.1\r\nhost: x\r\n"
                f"authorization: Bearer {self._key}\r\ntransfer-encoding: chunked\r\n\r\n"
            ).encode())
            sent = 0
            with contextlib.suppress(OSError):   # it has been answered, and closed
                while sent < 1024:
                    connection.sendall(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
                    sent += 1
            answer = connection.recv(1 << 16)
        memory_mb = self._memory_mb()
        return ("a body of 1 GB in chunks",
                f"{answer.split(b' ', 2)[1].decode()} when {sent} MB were sent; then "
                + ", ".join(f"{name} {mb:.0f} MB" for name, mb in memory_mb.items()),
                "413", answer.startswith(b"HTTP/1.1 413 "))

    def _connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self._stage.workspace.ca_certificate))
        plain = socket.create_connection(("127.0.0.1", self._stage.port), timeout=30)
        return context.wrap_socket(plain, server_hostname="localhost")


def _is_closed(connection: ssl.SSLSocket) -> bool:
    try:
        while connection.recv(65536):
            pass
    except ssl.SSLWantReadError:
        return False
    except OSError:
        pass
    return True


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the overload")
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    options = parser.parse_args()
    stage = Stage(Path(tempfile.mkdtemp(prefix="overload-")))
    try:
        stage.prepare(is_retried=False)
        stage.inferay("online-endpoint", "create", "-f", "endpoint.yml")
        stage.deploy("blue", *SETTINGS)
        stage.inferay("online-endpoint", "update", "-n", "soak", "--traffic", "blue=100")
        stage.wait_for_replicas("blue", 1)
        rows = []
        for row in Overload(stage, stage.keys()["primaryKey"]).rows(options.seconds):
            print(*row, sep=" | ", flush=True)
            rows.append(row)
    finally:
        stage.inferay("down")
        shutil.rmtree(stage.folder)
    if not options.no_record:
        add_rows(TITLE, _HEAD, [
            (commit(), what, seen, limit, "yes" if is_within else "no")
            for what, seen, limit, is_within in rows
        ])
    return 0 if all(is_within for *_, is_within in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
