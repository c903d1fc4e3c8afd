"""Requests through an edge's public port, every answer counted."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Protocol

import httpx

from tests.edges import wait_until


class Public(Protocol):
    """Who has a public port."""

    def http(self) -> httpx.Client:
        """Return a client of it."""


class Load:
    """Requests one after another on several threads, while the context lasts.

    Attributes:
        seen: How often each status, or lost connection, was seen.
    """

    def __init__(self, edge: Public, endpoint: str, key: str, clients: int = 4) -> None:
        self.seen: Counter[str] = Counter()
        self._edge = edge
        self._path = f"/endpoints/{endpoint}/score"
        self._headers = {"authorization": f"Bearer {key}"}
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Wait for so many more answers."""
        wanted = self.seen.total() + more
        wait_until(lambda: self.seen.total() >= wanted, f"{more} answers")

    def _run(self) -> None:
        with self._edge.http() as client:
            while not self._is_over.is_set():
                try:
                    answer = client.post(self._path, content="1", headers=self._headers)
                    self.seen[str(answer.status_code)] += 1
                except httpx.HTTPError as error:
                    self.seen[repr(error)] += 1
