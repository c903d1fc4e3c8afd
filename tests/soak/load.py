"""An open load on a scoring URI: requests come at their times, whatever becomes of the earlier.

Every request is counted by what came of it: its status, or how its connection was lost. A
connection is used again only if it is seen to be open.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

#: What a request may take before it is counted as lost.
LIMIT_S = 30.0


@dataclass
class Tally:
    """What came of the requests.

    Attributes:
        outcomes: How often each status, `refused` (no connection) or `lost` (no answer) was seen.
        latencies_s: Of those answered with 200.
        refused_s: How long those took that were answered with 429.
        retry_after: What these were told.
        bad: When each that was not answered with 200 was sent, and what came of it.
        by: How often each deployment answered.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    retry_after: set[str] = field(default_factory=set)
    bad: list[tuple[float, str]] = field(default_factory=list)
    by: Counter[str] = field(default_factory=Counter)

    def percentile_ms(self, share: float) -> float:
        """Return the latency that this share of the answers kept below."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3 if ordered else 0.0


class OpenLoad:
    """Requests at a rate, on a thread of its own, while the context lasts.

    Args:
        port: Of the edge, on loopback.
        ca: What its certificate is trusted by.
        path: Of the scoring URI.
        key: Returns the key to use now.
        rate: Requests per second.
        body: Of each request.
        headers: Further ones.
    """

    def __init__(
        self, port: int, ca: Path, path: str, key: Callable[[], str], rate: float,
        body: bytes = b"[1]", headers: str = "",
    ) -> None:
        self.tally = Tally()
        self._port, self._path, self._key, self._rate, self._body = port, path, key, rate, body
        self._headers = headers
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._closing: list[asyncio.Future[None]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> OpenLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    async def _run(self) -> None:
        under_way: set[asyncio.Task[None]] = set()
        began_s = time.monotonic()
        number = 0
        while not self._is_over.is_set():
            due_s = began_s + number / self._rate
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            task = asyncio.ensure_future(self._request())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            number += 1
        await asyncio.gather(*under_way)
        for _, writer in self._idle:
            self._close(writer)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _close(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        self._closing.append(asyncio.ensure_future(writer.wait_closed()))

    async def _request(self) -> None:
        began_s, began_unix_s = time.monotonic(), time.time()
        try:
            async with asyncio.timeout(LIMIT_S):
                outcome, headers = await self._exchange()
        except ConnectionRefusedError:
            outcome, headers = "refused", {}
        except (OSError, EOFError, ValueError) as error:
            outcome, headers = f"lost ({type(error).__name__})", {}
        self.tally.outcomes[outcome] += 1
        self.tally.by[headers.get("azureml-model-deployment", "")] += 1
        took_s = time.monotonic() - began_s
        if outcome == "200":
            self.tally.latencies_s.append(took_s)
            return
        self.tally.bad.append((began_unix_s, outcome))
        if outcome == "429":
            self.tally.refused_s.append(took_s)
            self.tally.retry_after.add(headers.get("retry-after", ""))

    async def _exchange(self) -> tuple[str, dict[str, str]]:
        reader, writer = await self._connection()
        try:
            writer.write(
                f"POST {self._path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json"
                f"\r\nauthorization: Bearer {self._key()}\r\n{self._headers}"
                f"content-length: {len(self._body)}\r\n\r\n".encode() + self._body
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value for name, _, value in (one.partition(": ") for one in head[1:])
            }
            await reader.readexactly(int(headers.get("content-length", "0")))
        except BaseException:
            self._close(writer)
            raise
        if headers.get("connection") == "close":
            self._close(writer)
        else:
            self._idle.append((reader, writer))
        return head[0].split(" ")[1], headers

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            self._close(writer)
        return await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._tls, server_hostname="localhost"
        )
