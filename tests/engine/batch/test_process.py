"""Real worker processes, each with the user's code in it."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from inferay.engine.batch import process as processes
from inferay.engine.batch.child import STACK_SIGNAL
from inferay.engine.batch.hand import Hand
from inferay.engine.batch.messages import Failure
from inferay.engine.batch.process import signal_name, user_stack
from inferay.engine.batch.store import LocalStore
from tests.engine.batch.workers import LIMIT_S, Watched, is_gone, script_of

Write = Callable[..., Path]

ECHO = script_of("return [path.rpartition('/in/')[2].upper() for path in mini_batch]")


# -- the ordinary course


def test_a_lease_is_answered_with_rows_in_the_segment(
    start: Callable[..., Watched], store: LocalStore
) -> None:
    worker = start(ECHO).ready()
    worker.lease(0, 2)
    receipt = worker.receipt()
    assert (receipt["lease_id"], receipt["failed"], receipt["rest"]) == (1, [], None)
    (done,) = receipt["done"]
    assert (done["range"], done["rows"], done["items"]) == ([0, 2], 4, 4)
    rows = store.read(done["segment"], done["start"], done["stop"])
    assert rows == b"0.TXT\n1.TXT\n2.TXT\n3.TXT\n"
    worker.lease(5, 6, 2)
    (more,) = worker.receipt()["done"]
    assert more["start"] == done["stop"]
    assert store.read(more["segment"], more["start"], more["stop"]) == b"10.TXT\n11.TXT\n"


def test_leases_that_wait_are_answered_in_order(start: Callable[..., Watched]) -> None:
    worker = start(ECHO).ready()
    for number in range(5):
        worker.lease(number, number + 1, number)
    assert [worker.receipt()["lease_id"] for _ in range(5)] == [0, 1, 2, 3, 4]


def test_what_the_budget_does_not_hold_is_given_back(start: Callable[..., Watched]) -> None:
    worker = start(ECHO).ready()
    worker.lease(1, 5, budget_s=0.0)
    receipt = worker.receipt()
    assert receipt["rest"] == [2, 5]
    assert [done["range"] for done in receipt["done"]] == [[1, 2]]


def test_a_mini_batch_that_raises_is_named_and_the_others_go_on(
    start: Callable[..., Watched], store: LocalStore, tmp_path: Path
) -> None:
    root = os.fsencode(tmp_path / "in")
    worker = start(script_of("""
        if any(path.endswith("/4.txt") for path in mini_batch):
            raise ValueError("no four")
        return mini_batch
    """)).ready()
    worker.lease(1, 5)
    receipt = worker.receipt()
    assert [done["range"] for done in receipt["done"]] == [[1, 2], [3, 5]]
    (failed,) = receipt["failed"]
    assert (failed["range"], failed["items"]) == ([2, 3], 2)
    assert failed["failure"]["kind"] == "Exception"
    assert failed["failure"]["exception"] == "ValueError: no four"
    assert 'File "score.py"' in failed["failure"]["traceback"]
    assert "inferay" not in failed["failure"]["traceback"]
    rows = b"".join(store.read(d["segment"], d["start"], d["stop"]) for d in receipt["done"])
    assert rows.split() == [b"%s/%d.txt" % (root, n) for n in (2, 3, 6, 7, 8, 9)]


@pytest.mark.parametrize(("body", "kind", "exception"), [
    ("return None", "Rows", "run() returned None"),
    ("return {'a': 1}", "Rows", "run() returned an object of type dict"),
    ("sys.exit(3)", "Exception", "SystemExit: 3"),
    ("raise KeyboardInterrupt", "Exception", "KeyboardInterrupt"),
    ("yield 'a'; raise KeyError('late')", "Exception", "KeyError: 'late'"),
    ("class E(Exception):\n    def __str__(self): raise OSError\nraise E()", "Exception", "E"),
    ("return ['\\ud800']", "Exception", "UnicodeEncodeError"),
])
def test_whatever_run_raises_or_returns_fails_that_mini_batch_only(
    start: Callable[..., Watched], body: str, kind: str, exception: str
) -> None:
    worker = start(script_of(body)).ready()
    worker.lease(0, 2)
    failed = worker.receipt()["failed"]
    assert [one["range"] for one in failed] == [[0, 1], [1, 2]]
    assert {one["failure"]["kind"] for one in failed} == {kind}
    assert exception in failed[0]["failure"]["exception"]


def test_too_few_rows_are_counted(start: Callable[..., Watched]) -> None:
    worker = start(script_of("return mini_batch[:1]")).ready()
    worker.lease(0, 3)
    done = worker.receipt()["done"]
    assert [one["missing"] for one in done] == [[[0, 2, 1]], [[1, 2, 1]], [[2, 2, 1]]]
    assert [(one["rows"], one["items"]) for one in done] == [(1, 2)] * 3


def test_files_of_the_script_are_in_the_receipt(
    start: Callable[..., Watched], store: LocalStore
) -> None:
    worker = start(script_of(
        """
        name = os.path.basename(mini_batch[0])
        with open(os.path.join(OUT, name), "w") as file:
            file.write("of " + name)
        return mini_batch
        """, top='OUT = os.environ["AZUREML_BI_OUTPUT_PATH"]',
    )).ready()
    worker.lease(0, 2)
    (done,) = worker.receipt()["done"]
    assert [(f["name"], f["mini_batch"]) for f in done["files"]] == [("0.txt", 0), ("2.txt", 1)]
    assert [store.read(f["stored"]) for f in done["files"]] == [b"of 0.txt", b"of 2.txt"]


def test_a_summary_only_worker_writes_no_rows(
    start: Callable[..., Watched], store: LocalStore
) -> None:
    worker = start(ECHO, output_action="summary_only").ready()
    worker.lease(0, 3)
    (done,) = worker.receipt()["done"]
    assert (done["segment"], done["start"], done["stop"], done["rows"]) == ("", 0, 0, 6)
    assert store.names("segments/") == []


def test_the_environment_is_azures_without_the_workspaces_secrets(
    start: Callable[..., Watched], store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("INFERAY_HOME", "INFERAY_X", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "canary-secret")
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    worker = start(
        script_of("import json; return [json.dumps(dict(os.environ)), json.dumps(SEEN)]",
                  top='SEEN = os.environ.get("MINE")'),
        environment_variables={"MINE": "1", "KEPT": "changed"}, threads=3,
    ).ready()
    worker.lease(0, 1)
    (done,) = worker.receipt()["done"]
    first, second = store.read(done["segment"], 0, done["stop"]).splitlines()
    environ = json.loads(first)
    assert "canary-secret" not in environ.values()
    assert not [name for name in environ if name.startswith(processes.HIDDEN_VARIABLES)]
    assert json.loads(second) == "1"   # set before the script is imported
    assert environ["KEPT"] == "changed"
    assert environ["AZUREML_MODEL_DIR"] == "/model"
    assert environ["AZUREML_ENTRY_SCRIPT"] == "score.py"
    assert Path(environ["AML_APP_ROOT"]).name == "code"
    assert environ["OMP_NUM_THREADS"] == "3"
    assert environ["AZUREML_BI_OUTPUT_PATH"].startswith(str(store.root))


def test_output_of_the_script_is_in_its_logs(
    start: Callable[..., Watched], tmp_path: Path, wait_for: Callable[..., None]
) -> None:
    worker = start(script_of(
        "print('to stdout'); sys.stderr.write('to stderr\\n'); logging.info('said'); "
        "logging.debug('not said'); os.system('echo from a child'); return mini_batch",
        top="import logging\nprint('at import')",
    )).ready()
    worker.lease(0, 1)
    worker.receipt()
    node = platform.node()
    out = (tmp_path / "logs" / "stdout" / node / "process000.stdout.txt").read_text()
    err = (tmp_path / "logs" / "stderr" / node / "process000.stderr.txt").read_text()
    assert out.split("\n")[:3] == ["at import", "to stdout", "from a child"]
    assert "to stderr" in err
    assert "INFO root: said" in err
    assert "not said" not in err


def test_stopping_runs_shutdown_and_flushes(
    start: Callable[..., Watched], tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    worker = start(
        ECHO + f"\ndef shutdown():\n    open({str(mark)!r}, 'w').write('ended')\n"
    ).ready()
    worker.worker.stop()
    assert mark.read_text() == "ended"
    assert not psutil.pid_exists(worker.pid)
    worker.worker.stop()


def test_a_shutdown_that_hangs_is_killed(
    start: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_WAIT_S", 0.2)
    worker = start(ECHO + "\ndef shutdown():\n    time.sleep(1000)\n").ready()
    worker.worker.stop()
    assert not psutil.pid_exists(worker.pid)


# -- starts that fail


def failed_start(worker: Watched) -> Failure:
    return Failure(**worker.message("start_failed")["failure"])


def test_an_init_that_raises_is_told_with_the_users_traceback(
    start: Callable[..., Watched]
) -> None:
    worker = start(script_of("return []", init="raise ValueError('no model here')"))
    failure = failed_start(worker)
    assert (failure.kind, failure.is_own) == ("InitFailed", True)
    assert failure.exception == "init() of score.py failed: ValueError: no model here"
    assert 'File "score.py", line 4, in init' in failure.traceback
    assert "inferay" not in failure.traceback
    worker.death()


@pytest.mark.parametrize(("init", "exception"), [
    ("sys.exit(0)", "SystemExit: 0"), ("exit(1)", "SystemExit: 1"),
])
def test_an_init_that_exits_is_a_failed_start(
    start: Callable[..., Watched], init: str, exception: str
) -> None:
    failure = failed_start(start(script_of("return []", init=init)))
    assert (failure.kind, failure.is_own) == ("InitFailed", True)
    assert exception in failure.exception


@pytest.mark.parametrize(("init", "kind", "exception"), [
    ("os._exit(0)", "Exited", "init() ended the process with exit code 0"),
    ("os._exit(7)", "Exited", "init() ended the process with exit code 7"),
    ("ctypes.string_at(0)", "Crashed", "init() crashed with SIGSEGV"),
    ("os.abort()", "Crashed", "init() crashed with SIGABRT"),
])
def test_an_init_that_ends_the_process_is_its_own_death(
    start: Callable[..., Watched], init: str, kind: str, exception: str
) -> None:
    worker = start(script_of("return []", init=init))
    failure, in_hand = worker.death()
    assert (failure.kind, failure.exception, failure.is_own) == (kind, exception, True)
    assert in_hand is None
    assert worker.messages.empty()
    if kind == "Crashed":
        assert 'File "score.py", line 4 in init' in failure.traceback


def test_an_init_that_hangs_is_killed_with_its_stack(
    start: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "INIT_TIMEOUT_S", 2.0)
    worker = start(script_of("return []", init="time.sleep(1000)"))
    failure, _ = worker.death()
    assert (failure.kind, failure.is_own) == ("InitTimeout", True)
    assert failure.exception == "init() did not end within 2 s"
    assert 'File "score.py", line 4 in init' in failure.traceback


def test_an_init_that_fails_ends_though_a_thread_of_its_runs_on(
    start: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_WAIT_S", 0.3)
    worker = start(script_of("return []", init="""
        threading.Thread(target=time.sleep, args=(1000,)).start()
        raise ValueError("x")
    """))
    assert failed_start(worker).kind == "InitFailed"
    worker.death()
    assert not psutil.pid_exists(worker.pid)


@pytest.mark.parametrize(("text", "kind"), [
    ("def init(:", "InitFailed"), ("import no_such_thing", "PackageMissing"),
    ("def init(): pass", "NoRun"),
])
def test_a_script_that_does_not_load_is_a_failed_start(
    start: Callable[..., Watched], text: str, kind: str
) -> None:
    assert failed_start(start(text)).kind == kind


# -- deaths


@pytest.mark.parametrize(("body", "kind", "exception"), [
    ("os._exit(3)", "Exited", "run() ended the process with exit code 3"),
    ("os._exit(0)", "Exited", "run() ended the process with exit code 0"),
    ("ctypes.string_at(0)", "Crashed", "run() crashed with SIGSEGV"),
    ("os.kill(os.getpid(), signal.SIGFPE)", "Crashed", "run() crashed with SIGFPE"),
])
def test_a_run_that_ends_the_process_is_blamed_on_the_mini_batch_in_hand(
    start: Callable[..., Watched], body: str, kind: str, exception: str
) -> None:
    worker = start(script_of(f"""
        if any(path.endswith("/6.txt") for path in mini_batch):
            {body}
        return mini_batch
    """)).ready()
    worker.lease(1, 6)
    failure, in_hand = worker.death()
    assert (failure.kind, failure.exception, failure.is_own) == (kind, exception, True)
    assert in_hand == 3
    assert worker.messages.empty()


@pytest.mark.parametrize("body", ["time.sleep(1000)", "while True: pass"])
def test_a_run_that_hangs_is_killed_with_the_hung_stack(
    start: Callable[..., Watched], body: str
) -> None:
    worker = start(script_of(body), timeout_s=0.3).ready()
    began_s = time.monotonic()
    worker.lease(2, 4)
    failure, in_hand = worker.death()
    assert (failure.kind, failure.is_own, in_hand) == ("Timeout", True, 2)
    assert failure.exception == "run() did not end within 0.3 s"
    assert 'File "score.py", line 6 in run' in failure.traceback
    assert "inferay" not in failure.traceback
    assert 0.3 < time.monotonic() - began_s < 5


def test_an_idle_worker_has_no_time_limit(
    start: Callable[..., Watched], wait_for: Callable[..., None]
) -> None:
    worker = start(ECHO, timeout_s=0.05).ready()
    worker.lease(0, 1)
    worker.receipt()
    idle_s = time.monotonic() + 0.3
    wait_for(lambda: time.monotonic() > idle_s)
    worker.lease(1, 2, 2)
    assert worker.receipt()["lease_id"] == 2


@pytest.mark.parametrize(("number", "name"), [
    (signal.SIGKILL, "SIGKILL"), (signal.SIGTERM, "SIGTERM"), (40, "signal 40"),
])
def test_a_kill_from_outside_is_not_the_codes_own_doing(
    start: Callable[..., Watched], number: int, name: str, tmp_path: Path,
    wait_for: Callable[..., None],
) -> None:
    worker = start(script_of(
        f"open({str(tmp_path / 'begun')!r}, 'w').close(); time.sleep(1000)"
    )).ready()
    worker.lease(1, 2)
    wait_for((tmp_path / "begun").exists)
    os.kill(worker.pid, number)
    failure, in_hand = worker.death()
    assert (failure.kind, failure.is_own, in_hand) == ("Killed", False, 1)
    assert failure.exception == f"the worker process was killed with {name} from outside"


def test_a_kill_while_idle_has_nothing_in_hand(start: Callable[..., Watched]) -> None:
    worker = start(ECHO).ready()
    worker.worker.kill()
    failure, in_hand = worker.death()
    assert (failure.kind, in_hand) == ("Killed", None)


def test_a_lease_for_a_worker_that_is_gone_is_no_error(start: Callable[..., Watched]) -> None:
    """Its death may be waiting in the driver's queue while the driver gives it a lease."""
    worker = start(ECHO).ready()
    worker.worker.kill()
    worker.death()
    worker.lease(0, 1)
    worker.worker.kill()
    worker.worker.close_input()


@pytest.mark.parametrize("end", ["os._exit(1)", "time.sleep(1000)"])
def test_what_the_script_started_dies_with_it(
    start: Callable[..., Watched], tmp_path: Path, wait_for: Callable[..., None], end: str
) -> None:
    pids = tmp_path / "pids"
    worker = start(script_of(f"""
        forked = os.fork() or time.sleep(1000)
        started = subprocess.Popen(["sleep", "1000"]).pid
        with open({str(pids)!r}, "w") as file:
            file.write(f"{{forked}} {{started}}")
        {end}
    """), timeout_s=1.0).ready()
    worker.lease(0, 1)
    worker.death()
    for pid in map(int, pids.read_text().split()):
        wait_for(lambda pid=pid: is_gone(pid))


def test_a_receipt_that_was_cut_off_by_the_death_is_no_receipt(
    start: Callable[..., Watched], wait_for: Callable[..., None]
) -> None:
    worker = start(script_of("""
        fd = max(int(fd) for fd in os.listdir("/proc/self/fd")
                 if os.path.exists(f"/proc/self/fd/{fd}")
                 and os.readlink(f"/proc/self/fd/{fd}").startswith("socket"))
        os.write(fd, b'{"k": "receipt", "rec')
        os.kill(os.getpid(), 9)
    """)).ready()
    worker.lease(0, 1)
    failure, in_hand = worker.death()
    assert (failure.kind, in_hand) == ("Killed", 0)
    assert worker.messages.empty()


@pytest.mark.parametrize("call", ["link", "rename"])
def test_a_full_disk_is_told_as_such_and_blames_no_mini_batch(
    start: Callable[..., Watched], call: str
) -> None:
    """When the rows are put into the segment, and when a file of the script's is kept."""
    worker = start(script_of(
        "open(os.environ['AZUREML_BI_OUTPUT_PATH'] + '/x', 'w').close(); return mini_batch",
        top=f"""
            def full(*_, **__):
                raise OSError(28, "No space left on device")
            os.{call} = full
        """,
    )).ready()
    worker.lease(0, 1)
    failure, in_hand = worker.death()
    assert (failure.kind, failure.is_own, in_hand) == ("StorageFull", False, None)


def test_a_damaged_manifest_is_told_as_such(
    start: Callable[..., Watched], store: LocalStore
) -> None:
    (part,) = store.names("manifest/e1-part")
    store.replace(part, b"garbage")
    worker = start(ECHO).ready()
    worker.lease(0, 1)
    failure, in_hand = worker.death()
    assert (failure.kind, failure.is_own, in_hand) == ("ManifestDamaged", False, None)
    assert part in failure.exception


def test_a_worker_ends_when_its_parent_is_killed(
    tmp_path: Path, write_script: Write, store: LocalStore, wait_for: Callable[..., None]
) -> None:
    code = write_script(ECHO)
    program = f"""
import os, time
from inferay.engine.batch.messages import WorkerSettings
from inferay.engine.batch.process import WorkerProcess
settings = WorkerSettings(
    code_dir={str(code)!r}, scoring_script="score.py", model_dir="", root="/in",
    store={str(store.root)!r}, segment="segments/p", logs={str(tmp_path / "logs")!r},
    log_name="p",
)
worker = WorkerProcess(
    settings, on_message=lambda m: print(worker.pid, flush=True), on_death=lambda f, i: None
)
time.sleep(1000)
"""
    folder = tmp_path / "of-parent"
    folder.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_for(lambda: is_gone(pid))


def test_a_worker_ends_when_its_channel_closes(
    tmp_path: Path, write_script: Write, store: LocalStore
) -> None:
    """Where no signal comes at the parent's death, the closed socket ends it."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "inferay.engine.batch.child", str(theirs.fileno())],
        pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL,
    )
    theirs.close()
    ours.close()
    assert process.wait(LIMIT_S) != 0


def test_a_ready_worker_has_left_nothing_in_the_temp_dir_whatever_kills_its_parent(
    start: Callable[..., Watched]
) -> None:
    start(ECHO).ready()
    assert list(Path(tempfile.gettempdir()).glob("inferay-worker-*")) == []


# -- small parts


def test_the_hand_is_one_memory_for_both_sides(tmp_path: Path) -> None:
    ours = Hand(tmp_path / "hand", create=True)
    theirs = Hand(tmp_path / "hand")
    assert ours.read()[0] is None
    before_s = time.monotonic()
    theirs.take(2**40)
    in_hand, since_s = ours.read()
    assert in_hand == 2**40
    assert before_s <= since_s <= time.monotonic()
    theirs.take(0)
    assert ours.read()[0] == 0
    theirs.release()
    assert ours.read()[0] is None
    with pytest.raises(FileExistsError):
        Hand(tmp_path / "hand", create=True)
    ours.close()
    theirs.close()


def test_a_hung_stack_has_no_frame_of_ours() -> None:
    ours = Path(processes.__file__)
    dump = f'''Thread 0x1 (most recent call first):
  File "/job/code/score.py", line 3 in run
  File "{ours.parent}/scorer.py", line 113 in _score_one
  File "<frozen runpy>", line 198 in _run_module_as_main'''
    assert user_stack(dump, "/job/code") == (
        'Thread 0x1 (most recent call first):\n  File "score.py", line 3 in run'
    )


def test_signals_have_names_or_numbers() -> None:
    assert signal_name(9) == "SIGKILL"
    assert signal_name(40) == "signal 40"
    assert STACK_SIGNAL not in processes.OWN_SIGNALS


def test_a_registered_model_that_was_changed_is_not_loaded(
    start: Callable[..., Watched], tmp_path: Path
) -> None:
    model = tmp_path / "model.bin"
    model.write_text("changed")
    worker = start(
        script_of("return mini_batch", init="raise SystemExit('loaded')"),
        model=str(model), model_hash="0" * 64,
    )
    failure = worker.message("start_failed")["failure"]
    assert failure["kind"] == "ModelChanged"
    assert "changed last: model.bin" in failure["exception"]
