from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from inferay.serve.mirror import lane, writer
from inferay.serve.mirror.exchange import Exchange
from inferay.serve.mirror.pairs import Pair, PairLog, folder_of
from inferay.serve.mirror.sample import read_sample
from inferay.serve.mirror.sender import Mirror
from tests.serve.mirror.shadows import answer, exchange, hang, say, shadow, wait_until


class OnLoop:
    """A mirror, and the event loop that live requests are answered on."""

    def __init__(self, mirror: Mirror, loop: asyncio.AbstractEventLoop) -> None:
        self.mirror = mirror
        self._loop = loop

    def offer(self, *exchanges: Exchange) -> None:
        async def offer() -> None:
            for one in exchanges:
                self.mirror.offer(one)

        asyncio.run_coroutine_threadsafe(offer(), self._loop).result(10)

    @property
    def green(self) -> lane.Lane:
        return self.mirror._lanes["green"]

    def counters(self) -> dict[str, dict[str, Any]]:
        return self.mirror.counters()

    def close(self, timeout_s: float = 0.0) -> None:
        self.mirror.close(timeout_s=timeout_s)


#: Makes a mirror that sends to a port, and ends with the test.
Make = Callable[..., OnLoop]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    found = uvloop.new_event_loop()
    thread = threading.Thread(target=found.run_forever)
    thread.start()
    yield found
    found.call_soon_threadsafe(found.stop)
    thread.join()
    found.close()


@pytest.fixture
def mirror(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> Iterator[Make]:
    made: list[OnLoop] = []

    def make(port: int | None, timeout_s: float = 5.0) -> OnLoop:
        log = PairLog(tmp_path, "blue", "r1", f"replica{len(made)}")
        made.append(OnLoop(Mirror(timeout_s=timeout_s, log=log), loop))
        if port is not None:
            made[-1].mirror.point_to("127.0.0.1", port, "s3cret")
        return made[-1]

    yield make
    for one in made:
        one.close()


def pairs_in(folder: Path, target: str = "green") -> list[Pair]:
    return list(read_sample(folder_of(folder, "blue", target)).pairs())


def failures(mirror: OnLoop, target: str = "green") -> dict[str, int]:
    failed: dict[str, int] = mirror.counters()[target]["failed"]
    return failed


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_copy_is_what_the_client_sent_with_the_marks_of_a_copy(mirror: Make) -> None:
    with shadow(answer()) as green:
        mirror(green.port).offer(exchange("id-7", query=b"a=%20b"))
        copy = green.wait_for(1)[0]
    assert copy.head.startswith("POST /endpoints/digits/score?a=%20b HTTP/1.1\r\n")
    assert copy.body == b'{"data": 1}'
    marks = ("x-inferay-edge", "x-inferay-shadow", "x-inferay-request", "content-type",
             "x-tenant", "content-length", "expect", "x-inferay-mirror")
    assert [copy.header(name) for name in marks] == [
        "s3cret", "green", "id-7", "application/json", "mine", "11", None, None,
    ]


def test_both_answers_are_written_as_a_pair(mirror: Make, tmp_path: Path) -> None:
    told = "x-ms-run-fn-exec-ms: 7.5\r\nx-inferay-revision: r9\r\nx-inferay-took-ms: 8\r\n"
    with shadow(answer(b"[2]", 201, told)) as green:
        one = mirror(green.port)
        one.offer(exchange("id-7"))
        one.close(timeout_s=5)
    pair, = pairs_in(tmp_path)
    assert (pair.request_id, pair.began_unix_s, pair.request.content) == (
        "id-7", 1e9, '{"data": 1}',
    )
    assert (pair.live.status, pair.live.body.content, pair.live.took_s, pair.live.run_s) == (
        200, "[1]", 0.01, 0.005,
    )
    assert (pair.shadow.status, pair.shadow.body.content, pair.shadow.took_s) == (
        201, "[2]", 0.008,
    )
    assert (pair.live.revision, pair.shadow.revision, pair.shadow.run_s) == ("r1", "r9", 0.0075)


def test_each_target_gets_one_copy(mirror: Make) -> None:
    with shadow(answer()) as edge:
        one = mirror(edge.port)
        for number in range(20):
            one.offer(exchange(f"id-{number}", "green", "red"))
        one.close(timeout_s=5)
        got = sorted((c.header("x-inferay-request"), c.header("x-inferay-shadow"))
                     for c in edge.copies)
    assert got == sorted((f"id-{n}", t) for n in range(20) for t in ("green", "red"))
    assert one.counters()["red"] == {
        "offered": 20, "dropped": {}, "sent": 20, "answered": 20, "failed": {},
    }


def test_connections_are_used_again(mirror: Make) -> None:
    with shadow(answer()) as green:
        one = mirror(green.port)
        for number in range(10):
            one.offer(exchange(f"id-{number}"))
            green.wait_for(number + 1)
            wait_until(lambda: not one.green.is_busy)
        assert {copy.connection for copy in green.copies} == {1}


def test_a_connection_that_the_edge_has_closed_is_not_used_again(mirror: Make) -> None:
    closing = say(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n")
    with shadow(closing) as green:
        one = mirror(green.port)
        for number in range(3):
            one.offer(exchange(f"id-{number}"))
            wait_until(lambda: not one.green.is_busy)
            wait_until(lambda: not any(
                each.can_be_used for each in one.green._idle
            ))
        assert [copy.connection for copy in green.copies] == [1, 2, 3]
    assert failures(one) == {}


def test_a_new_edge_gets_the_copies_from_then_on(mirror: Make) -> None:
    with shadow(answer()) as old, shadow(answer()) as new:
        one = mirror(old.port)
        one.offer(exchange("id-1"))
        wait_until(lambda: one.counters()["green"]["answered"] == 1)
        one.mirror.point_to("127.0.0.1", new.port, "other")
        one.offer(exchange("id-2"))
        assert new.wait_for(1)[0].header("x-inferay-edge") == "other"
        assert len(old.copies) == 1


def test_nothing_is_sent_before_the_edge_has_said_where_to(mirror: Make) -> None:
    one = mirror(None)
    one.offer(exchange())
    assert one.counters()["green"]["dropped"] == {"no_edge": 1}


@pytest.mark.parametrize(("said", "why"), [
    (b"\x16\x03\x01 what is this\r\n\r\n", "not_http"),
    (b"HTTP/1.1 200 X\r\nx: " + b"y" * 100_000, "not_http"),
    (b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\nhalf", "connection_closed"),
    (b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf", "connection_closed"),
    (b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n", "not_http"),
    (b"HTTP/1.1 100 Continue\r\n\r\n", "connection_closed"),
    (b"", "connection_closed"),
])
def test_what_is_no_answer_counts_as_failed(
    mirror: Make, tmp_path: Path, said: bytes, why: str
) -> None:
    with shadow(say(said)) as green:
        one = mirror(green.port)
        one.offer(exchange())
        wait_until(lambda: failures(one) == {why: 1})
        one.close()
    assert pairs_in(tmp_path) == []


def test_a_copy_that_the_edge_has_no_room_for_is_no_answer_of_the_shadow(
    mirror: Make, tmp_path: Path
) -> None:
    with shadow(answer(status=429)) as edge:
        one = mirror(edge.port)
        for number in range(2):
            one.offer(exchange(f"id-{number}"))
        wait_until(lambda: failures(one) == {"busy": 2})
        one.close()
    assert pairs_in(tmp_path) == []


def test_a_script_that_answers_429_has_answered(mirror: Make, tmp_path: Path) -> None:
    with shadow(answer(status=429, headers="x-inferay-revision: r9\r\n")) as green:
        one = mirror(green.port)
        one.offer(exchange())
        one.close(timeout_s=5)
    assert [pair.shadow.status for pair in pairs_in(tmp_path)] == [429]


@pytest.mark.parametrize("said", [
    b"HTTP/1.1 200 X\r\n\r\n[2]",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 X\r\ncontent-length: 3\r\n\r\n[2]",
    b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n1\r\n[\r\n2\r\n2]\r\n0\r\n\r\n",
])
def test_every_way_to_end_an_answer_is_understood(
    mirror: Make, tmp_path: Path, said: bytes
) -> None:
    with shadow(say(said)) as green:
        one = mirror(green.port)
        one.offer(exchange())
        one.close(timeout_s=5)
    assert [pair.shadow.body.content for pair in pairs_in(tmp_path)] == ["[2]"]


def test_a_refused_connection_counts_as_failed(mirror: Make) -> None:
    one = mirror(unused_port())
    for number in range(5):
        one.offer(exchange(f"id-{number}"))
    wait_until(lambda: failures(one) == {"not_connected": 5})
    assert one.counters()["green"]["sent"] == 0


def test_a_shadow_that_hangs_is_a_pair_without_an_answer(mirror: Make, tmp_path: Path) -> None:
    with shadow(hang) as green:
        one = mirror(green.port, timeout_s=0.05)
        one.offer(exchange())
        wait_until(lambda: failures(one) == {"timed_out": 1})
        one.close()
    pair, = pairs_in(tmp_path)
    assert pair.shadow.status is None
    assert pair.shadow.is_error


def test_a_shadow_that_hangs_fills_its_own_queue_only(mirror: Make) -> None:
    def behave(connection: socket.socket, copy: object) -> bool:
        if copy.header("x-inferay-shadow") == "green":   # type: ignore[attr-defined]
            return hang(connection, copy)   # type: ignore[arg-type]
        return answer()(connection, copy)   # type: ignore[arg-type]

    with shadow(behave) as edge:
        one = mirror(edge.port)
        room = lane.QUEUE_MAX + lane.IN_FLIGHT_MAX
        for number in range(room + 100):
            one.offer(exchange(f"id-{number}", "green"))
        one.offer(exchange("last", "red"))
        wait_until(lambda: one.counters()["red"]["answered"] == 1)
        wait_until(lambda: one.counters()["green"]["sent"] == lane.IN_FLIGHT_MAX)
        assert one.counters()["green"]["dropped"] == {"queue_full": 100}
        assert len(edge.connections) <= lane.IN_FLIGHT_MAX + 1
        one.close()
    assert one.counters()["green"]["dropped"] == {"queue_full": 100, "closing": lane.QUEUE_MAX}
    assert failures(one) == {"connection_closed": lane.IN_FLIGHT_MAX}


def test_large_bodies_fill_the_queue_by_their_bytes(mirror: Make) -> None:
    body = bytes(lane.QUEUE_BYTES_MAX // 4)
    with shadow(hang) as green:
        one = mirror(green.port)
        for number in range(6):
            one.offer(exchange(f"id-{number}", request_body=body))
        one.offer(exchange("huge", request_body=bytes(lane.QUEUE_BYTES_MAX + 1)))
        assert one.counters()["green"]["dropped"] == {"queue_full": 3, "too_large": 1}


def test_only_the_digest_of_a_large_answer_is_kept(mirror: Make, tmp_path: Path) -> None:
    large = b"x" * 10_000_000
    with shadow(answer(large)) as green:
        one = mirror(green.port)
        one.offer(exchange(answer_body=large, request_body=large))
        one.close(timeout_s=5)
    pair, = pairs_in(tmp_path)
    assert pair.live.body == pair.shadow.body
    assert (pair.shadow.body.content, pair.shadow.body.size_bytes) == (None, len(large))


def test_an_offer_costs_the_live_request_nothing_whatever_the_shadow_does(
    mirror: Make, loop: asyncio.AbstractEventLoop
) -> None:
    async def took_s(one: OnLoop) -> list[float]:
        found = []
        for number in range(2000):
            began_s = time.perf_counter()
            one.mirror.offer(exchange(f"id-{number}"))
            found.append(time.perf_counter() - began_s)
        return found

    with shadow(hang) as green:
        one = mirror(green.port)
        one.offer(exchange("first"))
        found = asyncio.run_coroutine_threadsafe(took_s(one), loop).result(30)
    assert sorted(found)[1000] < 0.001


def test_a_live_answer_leaves_before_its_copy_is_sent(
    mirror: Make, loop: asyncio.AbstractEventLoop
) -> None:
    async def sent_within_the_turn(one: OnLoop) -> int:
        one.mirror.offer(exchange("second"))
        return int(one.counters()["green"]["sent"])

    with shadow(answer()) as green:
        one = mirror(green.port)
        one.offer(exchange("first"))
        wait_until(lambda: not one.green.is_busy)
        found = asyncio.run_coroutine_threadsafe(sent_within_the_turn(one), loop).result(10)
        assert found == 1
        wait_until(lambda: one.counters()["green"]["answered"] == 2)


def test_closing_sends_what_is_queued_and_leaves_no_thread(mirror: Make) -> None:
    before = threading.active_count()
    with shadow(answer()) as green:
        one = mirror(green.port)
        for number in range(100):
            one.offer(exchange(f"id-{number}"))
        one.close(timeout_s=5)
        one.close()
        one.offer(exchange("late"))
    assert one.counters()["green"]["answered"] == 100
    assert one.counters()["green"]["dropped"] == {"closing": 1}
    assert threading.active_count() == before


def test_no_thread_starts_before_there_is_a_copy(mirror: Make) -> None:
    before = threading.active_count()
    one = mirror(1)
    one.offer(exchange(targets=()))
    assert threading.active_count() == before
    one.close(timeout_s=5)


def test_what_became_of_copies_is_in_the_log(mirror: Make, tmp_path: Path) -> None:
    with shadow(answer()) as green:
        one = mirror(green.port)
        one.offer(exchange())
        one.close(timeout_s=5)
    one.offer(exchange())
    assert read_sample(folder_of(tmp_path, "blue", "green")).counts == [{
        "offered": 1, "dropped": {}, "sent": 1, "answered": 1, "failed": {}, "unlogged": 0,
    }]


def test_a_disk_that_cannot_be_written_costs_only_the_log(
    mirror: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "blue~green").write_text("a file where the folder would be")
    with shadow(answer()) as green, contextlib.suppress(OSError):
        one = mirror(green.port)
        for number in range(3):
            one.offer(exchange(f"id-{number}"))
        one.close(timeout_s=5)
    assert one.counters()["green"]["answered"] == 3
    assert len(caplog.records) == 1


def test_pairs_that_come_faster_than_the_disk_takes_them_are_counted(
    mirror: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PAIRS_MAX", 3)
    folder = folder_of(tmp_path, "blue", "green")
    folder.mkdir()
    with shadow(answer()) as green:
        one = mirror(green.port)
        one.offer(*(exchange(f"id-{number}") for number in range(10)))
        wait_until(lambda: one.counters()["green"]["answered"] == 10)
        one.close(timeout_s=5)
    kept = len(pairs_in(tmp_path))
    assert 3 <= kept < 10
    assert read_sample(folder).counts[0]["unlogged"] == 10 - kept
