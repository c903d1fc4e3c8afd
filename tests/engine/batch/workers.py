"""Worker processes whose answers and deaths tests wait for."""

from __future__ import annotations

import queue
import textwrap
from typing import Any

import psutil

from inferay.engine.batch.messages import Failure, Lease, WorkerSettings
from inferay.engine.batch.process import WorkerProcess
from inferay.engine.batch.units import Range

#: A worker that says nothing for so long is stuck; on busy cores a crash takes seconds to be told.
LIMIT_S = 30.0


class Watched:
    """A worker process whose answers and death can be waited for."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self.deaths: queue.Queue[tuple[Failure, int | None]] = queue.Queue()
        self.worker = WorkerProcess(
            settings, on_message=self.messages.put,
            on_death=lambda failure, in_hand: self.deaths.put((failure, in_hand)),
        )
        self.pid = self.worker.pid

    def message(self, kind: str) -> dict[str, Any]:
        message = self.messages.get(timeout=LIMIT_S)
        assert message["k"] == kind, message
        return message

    def death(self) -> tuple[Failure, int | None]:
        return self.deaths.get(timeout=LIMIT_S)

    def ready(self) -> Watched:
        self.message("ready")
        return self

    def lease(self, first: int, stop: int, number: int = 1, budget_s: float = 60.0) -> None:
        self.worker.lease(Lease(number, Range(first, stop), 1, budget_s))

    def receipt(self) -> dict[str, Any]:
        receipt: dict[str, Any] = self.message("receipt")["receipt"]
        return receipt


def script_of(run: str, init: str = "pass", top: str = "") -> str:
    def indented(text: str) -> str:
        return textwrap.indent(textwrap.dedent(text).strip(), "    ")

    return "\n".join([
        "import os, sys, time, signal, threading, subprocess, ctypes", textwrap.dedent(top),
        "def init():", indented(init), "def run(mini_batch):", indented(run), "",
    ])


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
