"""A debugger as an editor is one: the Debug Adapter Protocol over a socket."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ANSWER_S = 30.0

Message = dict[str, Any]


class Debugger:
    """Attached to a process that listens with debugpy."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        self._file = self._socket.makefile("rb")
        self._numbers = itertools.count(1)
        self._unread: list[Message] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._socket.close()

    def attach(self, script: Path, line: int) -> None:
        """Attach, with a breakpoint at a line of a script."""
        self._ask("initialize", adapterID="test")
        attached = self._send("attach", justMyCode=True)
        self._wait(lambda one: one.get("event") == "initialized")
        found = self._ask(
            "setBreakpoints", source={"path": str(script)}, breakpoints=[{"line": line}]
        )
        assert found["breakpoints"][0]["verified"]
        self._ask("configurationDone")
        self._answer(attached)

    def wait_stopped(self) -> Message:
        """Wait until a thread stops at a breakpoint; return its top frame."""
        stopped = self._wait(lambda one: one.get("event") == "stopped")["body"]
        assert stopped["reason"] == "breakpoint"
        self._thread = stopped["threadId"]
        frame: Message = self._ask("stackTrace", threadId=self._thread)["stackFrames"][0]
        return frame

    def evaluate(self, expression: str, frame: Message) -> str:
        """Return what an expression is in a frame that stands still."""
        return str(self._ask("evaluate", expression=expression, frameId=frame["id"])["result"])

    def resume(self) -> None:
        """Let it run on."""
        self._ask("continue", threadId=self._thread)

    def _ask(self, command: str, **arguments: Any) -> Message:
        return self._answer(self._send(command, **arguments))

    def _send(self, command: str, **arguments: Any) -> int:
        number = next(self._numbers)
        body = json.dumps(
            {"seq": number, "type": "request", "command": command, "arguments": arguments}
        ).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return number

    def _answer(self, number: int) -> Message:
        found = self._wait(lambda one: one.get("request_seq") == number)
        assert found["success"], found
        body: Message = found.get("body") or {}
        return body

    def _wait(self, is_wanted: Callable[[Message], bool]) -> Message:
        for one in self._unread:
            if is_wanted(one):
                self._unread.remove(one)
                return one
        while True:
            found = self._read()
            if is_wanted(found):
                return found
            self._unread.append(found)

    def _read(self) -> Message:
        length = 0
        while (line := self._file.readline().strip()):
            length = int(line.removeprefix(b"Content-Length: "))
        assert length, "the debugger's connection ended"
        found: Message = json.loads(self._file.read(length))
        return found
