"""Every way in which a script can end or stall its worker process, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from inferay.engine.batch.memory import MB
from tests.engine.batch.workers import Watched, is_gone, script_of

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

TIMEOUT_S = 0.4

#: A hang is found and its worker gone within this time after its time-out.
FOUND_S = 0.5

Start = Callable[..., Watched]

RECURSE = """
    sys.setrecursionlimit(10**9)
    nested = []
    for _ in range(10**5):
        nested = [nested]
    repr(nested)
"""


@pytest.mark.parametrize("body", [
    "time.sleep(1000)",
    "while True: pass",
    "re.match('(a+)+$', 'a' * 60 + 'b')",   # in C, with the GIL held: no Python signal handler runs
    "os.kill(os.getpid(), signal.SIGSTOP); time.sleep(1000)",
    "thread = threading.Thread(target=time.sleep, args=(1000,)); thread.start(); thread.join()",
    "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); time.sleep(1000)",
    "signal.signal(signal.SIGUSR2, signal.SIG_DFL); time.sleep(1000)",
    "signal.signal(signal.SIGUSR2, signal.SIG_IGN); time.sleep(1000)",
    "faulthandler.unregister(signal.SIGUSR2); faulthandler.disable(); time.sleep(1000)",
    "os.close(0); os.close(1); os.close(2); time.sleep(1000)",
    "subprocess.run(['sleep', '1000'])",
    "os.fork() or time.sleep(1000); os.wait()",
])
def test_a_call_that_does_not_end_is_found_half_a_second_after_its_timeout_at_most(
    start: Start, body: str
) -> None:
    """Once in three times, as other tests may have the machine's cores for a moment."""
    script = script_of(body, top="import re, faulthandler")

    def found_s() -> float:
        worker = start(script, timeout_s=TIMEOUT_S).ready()
        began_s = time.monotonic()
        worker.lease(2, 4)
        failure, in_hand = worker.death()
        took_s = time.monotonic() - began_s
        assert (failure.kind, failure.is_own, in_hand) == ("Timeout", True, 2)
        assert took_s > TIMEOUT_S
        assert is_gone(worker.pid)
        return took_s - TIMEOUT_S

    assert any(found_s() < FOUND_S for _ in range(3))


def test_the_stack_of_a_stopped_process_is_told_too(start: Start) -> None:
    worker = start(
        script_of("os.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(1000)"), timeout_s=TIMEOUT_S
    ).ready()
    worker.lease(0, 1)
    failure, _ = worker.death()
    assert failure.exception == (
        "run() did not end within 0.4 s (its process was stopped, as by SIGSTOP)"
    )
    assert 'File "score.py", line 6 in run' in failure.traceback


@pytest.mark.parametrize(("body", "kind", "exception"), [
    ("os.abort()", "Crashed", "run() crashed with SIGABRT"),
    (RECURSE, "Crashed", "run() crashed with SIGSEGV"),
    ("faulthandler.disable(); ctypes.string_at(0)", "Crashed", "run() crashed with SIGSEGV"),
    ("threading.Thread(target=os._exit, args=(4,)).start(); time.sleep(1000)", "Exited",
     "run() ended the process with exit code 4"),
    ("os.closerange(3, 100); time.sleep(1000)", "Exited",
     "run() closed the connection to its parent"),
    ("[os.write(fd, b'junk\\n') for fd in sockets()]; time.sleep(1000)", "Exited",
     "user code wrote into the connection of its worker process"),
    ("[os.write(fd, b'\\xff\\n') for fd in sockets()]; time.sleep(1000)", "Exited",
     "user code wrote into the connection of its worker process"),
])
def test_a_call_that_ends_its_process_is_named_and_blamed(
    start: Start, body: str, kind: str, exception: str
) -> None:
    worker = start(script_of(body, top="""
        import faulthandler, stat
        def sockets():
            return [fd for fd in range(3, 100)
                    if os.path.exists(f"/proc/self/fd/{fd}")
                    and stat.S_ISSOCK(os.fstat(fd).st_mode)]
    """)).ready()
    worker.lease(2, 4)
    failure, in_hand = worker.death()
    assert (failure.kind, failure.exception, failure.is_own) == (kind, exception, True)
    assert in_hand == 2


def test_the_mini_batch_that_closed_the_connection_is_blamed_though_run_went_on(
    start: Start
) -> None:
    worker = start(script_of("""
        if any(path.endswith("/6.txt") for path in mini_batch):
            os.closerange(3, 100)
        time.sleep(0.05)
        return mini_batch
    """)).ready()
    worker.lease(2, 6)
    failure, in_hand = worker.death()
    assert (failure.kind, failure.is_own, in_hand) == ("Exited", True, 3)


@pytest.mark.parametrize("body", [
    "sys.stdout.close(); sys.stderr.close()",
    "sys.stdout = sys.stderr = None",
    "os.dup2(os.open('/dev/null', os.O_WRONLY), 1)",
    "threading.Thread(target=time.sleep, args=(1000,)).start()",
    "threading.Thread(target=sys.exit, args=(3,)).start()",
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "[print('x' * 1000) for _ in range(20_000)]",
    "os.chdir('/')",
    "os.environ.clear()",
    "sys.modules.clear()",
    "gc.disable(); gc.freeze()",
])
def test_what_a_script_does_to_its_own_process_does_not_end_it(start: Start, body: str) -> None:
    worker = start(script_of(f"{body}\nreturn mini_batch", top="import gc")).ready()
    for number in (1, 2):
        worker.lease(0, 2, number)
        receipt = worker.receipt()
        assert (receipt["lease_id"], receipt["failed"]) == (number, [])


# -- what is left behind


LEAVE = {
    "a child": "subprocess.Popen(['sleep', '1000'])",
    "a session of its own": "subprocess.Popen(['sleep', '1000'], start_new_session=True)",
    "a double fork": """
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            os.execvp("sleep", ["sleep", "1000"])
        os.wait()
    """,
    "a session without environment": """
        subprocess.Popen(['sleep', '1000'], start_new_session=True, env={})
        time.sleep(1)   # it is known by having been seen, which busy cores delay
    """,
}


@linux_only
@pytest.mark.parametrize("what", LEAVE)
@pytest.mark.parametrize("end", ["stop", "crash", "kill"])
def test_nothing_that_a_script_started_outlives_its_worker(
    start: Start, what: str, end: str, wait_for: Callable[..., None]
) -> None:
    before = sleepers()
    crash = "os.abort()" if end == "crash" else "return mini_batch"
    worker = start(script_of(LEAVE[what]).rstrip() + f"\n    {crash}\n").ready()
    worker.lease(0, 1)
    if end == "crash":
        worker.death()
    else:
        worker.receipt()
        wait_for(lambda: sleepers() - before)
        if end == "kill":
            worker.worker.kill()
            worker.death()
        else:
            worker.worker.stop()
    wait_for(lambda: not sleepers() - before)


@linux_only
@pytest.mark.parametrize("leave_group", ["", "os.setsid()"])
def test_a_fork_bomb_ends_with_its_worker(
    start: Start, leave_group: str, wait_for: Callable[..., None], tmp_path: Path
) -> None:
    """Each process forks one more and ends; a bomb that grows would take the machine's time."""
    mark = tmp_path / "bomb"
    worker = start(script_of(f"""
        if os.fork() == 0:
            {leave_group or "pass"}
            while True:
                if os.fork():
                    os._exit(0)
                open({str(mark)!r}, "w").close()
                time.sleep(0.002)
        time.sleep(1000)
    """), timeout_s=TIMEOUT_S).ready()
    worker.lease(0, 1)
    failure, _ = worker.death()
    assert failure.kind == "Timeout"
    mark.unlink()
    quiet_s = time.monotonic() + 0.1
    wait_for(lambda: time.monotonic() > quiet_s)
    assert not mark.exists()


@linux_only
def test_a_script_that_starts_too_many_processes_is_ended(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferay.engine.batch.process.PROCESSES_MAX", 20)
    worker = start(script_of("""
        for _ in range(40):
            os.fork() or time.sleep(1000)
        time.sleep(1000)
    """)).ready()
    worker.lease(3, 4)
    failure, in_hand = worker.death()
    assert (failure.kind, failure.is_own, in_hand) == ("TooManyProcesses", True, 3)


def sleepers() -> set[int]:
    return {
        process.pid for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] == ["sleep", "1000"]
    }


# -- memory


@linux_only
@pytest.mark.parametrize("body", [
    "kept = []\nwhile True: kept.append(bytearray(1 << 20))",
    "kept = b'x' * (3 << 30)",   # in one request
    "kept = []\nwhile True: kept.append(object())",
    "os.fork()\nkept = bytearray(300 << 20)\ntime.sleep(1000)",
    "import mmap; m = mmap.mmap(-1, 600 << 20); m.write(bytes(600 << 20)); time.sleep(1000)",
])
def test_a_leak_is_ended_with_its_stack_at_the_limit(start: Start, body: str) -> None:
    worker = start(script_of(body), memory_limit_bytes=400 * MB).ready()
    worker.lease(1, 3)
    failure, in_hand = worker.death()
    assert (failure.kind, failure.is_own, in_hand) == ("OutOfMemory", True, 1)
    assert 'File "score.py", line' in failure.traceback
    if not failure.exception.startswith("MemoryError"):
        assert "more than the limit of 400 MB of its worker" in failure.exception
        assert "inferay.worker_memory_mb" in failure.exception
        reached_mb = int(failure.exception.split()[2].replace(",", ""))
        assert 400 <= reached_mb < 2000


@linux_only
@pytest.mark.parametrize("body", [
    # Reserved, not used.
    "import mmap; m = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON | 0x4000)",
    # A file that is mapped is the page cache's.
    """
        import mmap, tempfile
        file = tempfile.TemporaryFile()
        file.truncate(300 << 20)
        m = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        sum(m[::4096])
    """,
    # What forked processes share counts once.
    """
        kept = bytearray(120 << 20)
        for _ in range(4):
            os.fork() or time.sleep(1000)
        time.sleep(0.3)
    """,
])
def test_what_takes_no_memory_of_its_own_is_not_counted(start: Start, body: str) -> None:
    worker = start(
        script_of(body).rstrip() + "\n    return mini_batch\n", memory_limit_bytes=250 * MB
    ).ready()
    worker.lease(0, 1)
    assert worker.receipt()["failed"] == []


@linux_only
def test_init_over_the_memory_limit_is_a_failed_start_that_names_the_setting(start: Start) -> None:
    worker = start(
        script_of("return mini_batch", init="bytearray(4 << 30)"), memory_limit_bytes=100 * MB
    )
    failure, in_hand = worker.death()
    assert (failure.kind, failure.is_own, in_hand) == ("OutOfMemory", True, None)
    assert failure.exception.startswith("init() used ")
    assert "instance_type" in failure.exception
    assert 'File "score.py", line 4 in init' in failure.traceback


def test_a_memory_error_of_the_scripts_is_named_so(start: Start) -> None:
    worker = start(script_of("raise MemoryError('no room')")).ready()
    worker.lease(0, 1)
    (failed,) = worker.receipt()["failed"]
    assert failed["failure"]["kind"] == "OutOfMemory"
    assert failed["failure"]["exception"] == "MemoryError: no room"


def test_a_memory_error_in_init_is_named_so(start: Start) -> None:
    worker = start(script_of("return []", init="raise MemoryError"))
    assert worker.message("start_failed")["failure"]["kind"] == "OutOfMemory"


@linux_only
def test_the_kernel_ends_a_worker_before_anything_else(start: Start) -> None:
    worker = start(script_of("return mini_batch")).ready()
    assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text() == "1000\n"


@linux_only
def test_a_kill_while_the_kernel_was_short_of_memory_is_named_so(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    begun = tmp_path / "begun"
    worker = start(script_of(f"open({str(begun)!r}, 'w').close(); time.sleep(1000)")).ready()
    worker.lease(1, 2)
    wait_for(begun.exists)
    monkeypatch.setattr("inferay.engine.batch.process.oom_kills", lambda: 10**6)
    os.kill(worker.pid, 9)
    failure, in_hand = worker.death()
    assert (failure.kind, failure.is_own, in_hand) == ("OutOfMemory", False, 1)
    assert "the kernel killed" in failure.exception


@linux_only
def test_watching_costs_little() -> None:
    from inferay.engine.batch.memory import MemoryWatch

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        watch = MemoryWatch(process.pid)
        began_s = time.process_time()
        for _ in range(200):
            watch.look(MB, 0.0)
        assert (time.process_time() - began_s) / 200 < 0.001   # of the 50 ms between two looks
        process.communicate(b"\n")
    assert watch.used_bytes > 0
