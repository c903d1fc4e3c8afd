from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inferay.serve.edge.haproxy import HAProxy, Known


@contextmanager
def sleeping(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that leads a session of its own, with these words in its command line."""
    command = [sys.executable, "-S", "-c", "print(flush=True); input()", *words]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()   # it is what it shall be
        yield process
        process.kill()


def test_only_what_has_its_configuration_is_ended_as_an_orphan(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    with sleeping("-f", str(config)) as orphan, sleeping() as stranger:
        for one in (stranger, orphan):
            known = Known(one.pid, 0.0)   # started long ago, before the machine was restarted
            HAProxy("haproxy", config, tmp_path, tmp_path / "log", known).end_orphans()
        assert orphan.wait(10) == -9
        assert stranger.poll() is None
