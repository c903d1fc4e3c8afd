"""More than a replica takes, in number or in bytes: what fits is answered, the rest refused."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from inferay.serve.routing import DeploymentRoute, EndpointRoute, RoutingTable, digest_of
from inferay.serve.server.limits import BODY_BYTES_MAX, Limits
from tests.edges import RunningEdge, started, wait_until
from tests.serve import replicas
from tests.serve.server.processes import Server
from tests.soak.load import OpenLoad

KEY = "k"

#: Two places of 50 ms each are 40 requests per second.
LIMITS = Limits(concurrent_requests_max=2, queue_wait_s=0.5, request_timeout_s=5.0)
CAPACITY = 40
OVERLOAD_S = 6.0

CHUNK = b"x" * (1 << 20)


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[RunningEdge]:
    with started(tmp_path / "edge") as found:
        yield found


@pytest.fixture
def replica(edge: RunningEdge, tmp_path: Path) -> Iterator[Server]:
    spec = replicas.replica_spec(
        tmp_path / "code", "import time\n\ndef run(data):\n    time.sleep(0.05)\n    return 1\n",
        limits=LIMITS, edge_url=edge.management,
        credential=edge.credential("digits", "blue", "r1"),
    )
    found = replicas.start(tmp_path / "replica", "r1", spec)
    route = DeploymentRoute("blue", "r1", spec.requests_max, 6.5)
    with contextlib.closing(edge.client()) as client:
        client.publish(RoutingTable((EndpointRoute(
            "digits", (digest_of(KEY),), traffic={"blue": 100}, deployments=(route,)
        ),)))
    edge.wait_up("r1")
    yield found
    found.process.terminate()
    found.end()


def load(edge: RunningEdge, rate: float) -> OpenLoad:
    return OpenLoad(edge.config.port, edge.ca, "/endpoints/digits/score", lambda: KEY, rate)


def test_what_does_not_fit_is_told_so_at_once_and_the_rest_is_as_fast_as_ever(
    edge: RunningEdge, replica: Server
) -> None:
    with load(edge, CAPACITY / 4) as calm:
        wait_until(lambda: len(calm.tally.latencies_s) >= 20, "an unhurried load")
    process = psutil.Process(replica.process.pid)
    with load(edge, 10 * CAPACITY) as overload:
        time.sleep(OVERLOAD_S / 2)   # what is measured is a load that lasts
        half_bytes = process.memory_info().rss
        time.sleep(OVERLOAD_S / 2)
        grown_bytes = process.memory_info().rss - half_bytes
    tally = overload.tally
    assert set(tally.outcomes) == {"200", "429"}
    assert tally.outcomes["200"] >= 0.6 * CAPACITY * OVERLOAD_S   # it is kept busy
    assert tally.outcomes["429"] > tally.outcomes["200"]
    limit_ms = 2 * calm.tally.percentile_ms(0.99) + LIMITS.queue_wait_s * 1e3
    assert tally.percentile_ms(0.99) <= limit_ms
    assert max(tally.refused_s) <= LIMITS.queue_wait_s
    assert tally.retry_after == {"1"}
    assert grown_bytes < 8 << 20
    with load(edge, CAPACITY / 4) as after:
        wait_until(lambda: len(after.tally.latencies_s) >= 20, "a normal load again")
    assert set(after.tally.outcomes) == {"200"}


def test_a_body_in_chunks_that_does_not_end_is_413(edge: RunningEdge, replica: Server) -> None:
    context = ssl.create_default_context(cafile=str(edge.ca))
    sent_bytes = 0
    with (
        socket.create_connection(("127.0.0.1", edge.config.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall((
            "POST /endpoints/digits/score HTTP/1.1\r\nhost: x\r\n"
            f"authorization: Bearer {KEY}\r\ntransfer-encoding: chunked\r\n\r\n"
        ).encode())
        try:
            while sent_bytes < 2 * BODY_BYTES_MAX:
                connection.sendall(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
                sent_bytes += len(CHUNK)
        except OSError:   # it has been answered, and closed
            pass
        answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 413 "), answer
    assert b'"code": "RequestTooLarge"' in answer
    held_bytes = psutil.Process(replica.process.pid).memory_info().rss
    assert held_bytes < 3 * BODY_BYTES_MAX
