from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BEGIN = """
import faulthandler, os, subprocess, sys, time
from pathlib import Path
from inferay.serve.replica_log import ReplicaLog
path = Path(sys.argv[1])
ReplicaLog(path, bytes_max=10_000)
"""


def run(folder: Path, code: str) -> tuple[str, subprocess.CompletedProcess[str]]:
    """Run code in a process that logs; return its log, and what it printed elsewhere."""
    path = folder / "logs" / "one.log"
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code, str(path)], capture_output=True, text=True,
        timeout=60,
    )
    return path.read_text(), done


def test_what_any_code_of_the_process_prints_is_in_its_log(tmp_path: Path) -> None:
    said, done = run(tmp_path, """
print("from Python")
os.write(1, b"from C\\n")
subprocess.run(["echo", "from a child"])
print("to stderr", file=sys.stderr)
raise ValueError("the end")
""")
    assert said.splitlines()[:4] == ["from Python", "from C", "from a child", "to stderr"]
    assert said.endswith("ValueError: the end\n")
    assert done.stdout == ""
    assert str(tmp_path / "logs" / "one.log") in done.stderr


def test_the_last_words_of_a_crash_are_in_it(tmp_path: Path) -> None:
    said, done = run(tmp_path, """
print("working")
faulthandler.enable()
faulthandler._sigsegv()
""")
    assert done.returncode < 0
    assert said.startswith("working\n")
    assert "Segmentation fault" in said


def test_it_stays_within_its_limit_with_the_newest_lines(tmp_path: Path) -> None:
    said, _ = run(tmp_path, """
older = path.with_name("one.log.1")
for number in range(2):
    print(f"part {number}", "x" * 11_000, flush=True)
    until_s = time.monotonic() + 30
    while os.fstat(1).st_size > 10_000 and time.monotonic() < until_s:
        time.sleep(0.01)
print("the last line")
""")
    assert said == "the last line\n"
    assert (tmp_path / "logs" / "one.log.1").read_text().startswith("part 1")
    assert len(list((tmp_path / "logs").iterdir())) == 2


def test_logs_of_replicas_that_are_long_gone_are_removed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for number in range(250):
        path = tmp_path / "logs" / f"{number}.log"
        path.touch()
        os.utime(path, (1e9 + number, 1e9 + number))
    run(tmp_path, "print('new')")
    names = {path.name for path in (tmp_path / "logs").iterdir()}
    assert len(names) == 200
    assert {"one.log", "249.log"} <= names
    assert "0.log" not in names
