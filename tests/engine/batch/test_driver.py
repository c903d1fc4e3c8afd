"""Whole jobs: with real worker processes, or scored in the driver's thread where that is enough."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inferay.engine.batch.changes import facts_of
from inferay.engine.batch.driver import CANCEL, Driver, PoolFactory
from inferay.engine.batch.journal import SupersededError, claim, epochs, valid_records
from inferay.engine.batch.manifest import SEAL, write_manifest
from inferay.engine.batch.messages import WorkerStartFailed
from inferay.engine.batch.pool import Events, LocalPool, SettingsOf
from inferay.engine.batch.result import Interrupted, Result
from inferay.engine.batch.spec import JobSpec
from inferay.engine.batch.store import LocalLog, LocalStore
from inferay.engine.storage.retries import StorageUnavailable
from inferay.errors import Conflict, InvalidInput, JobError, Unavailable

MakeSpec = Callable[..., JobSpec]
RunJob = Callable[..., Result]
Inline = Callable[..., PoolFactory]
Tree = Callable[[str | Path], dict[str, str]]


def echo(paths: list[str], _: Path) -> list[str]:
    return [f"{os.path.basename(path)}={Path(path).read_text()}" for path in paths]


def out(spec: JobSpec, name: str = "predictions.csv") -> bytes:
    return (Path(spec.output) / name).read_bytes()


def listing(spec: JobSpec) -> list[str]:
    return sorted(os.listdir(spec.output)) if os.path.isdir(spec.output) else []


def success(spec: JobSpec) -> dict[str, Any]:
    """Return what _SUCCESS.json says, without what may differ between runs."""
    found: dict[str, Any] = json.loads(out(spec, "_SUCCESS.json"))
    assert found.pop("run")["job"] == spec.name
    return found


def errors(spec: JobSpec) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out(spec, "errors.jsonl").splitlines()]


def lines_of(count: int) -> list[str]:
    return [f"{number:04d}.txt={number}" for number in range(count)]


# -- the same bytes


def test_the_output_is_the_same_for_any_mini_batch_size_and_number_of_workers(
    make_spec: MakeSpec, run_job: RunJob
) -> None:
    outputs = set()
    for size in (1, 4, 100):
        for workers in (1, 3):
            spec = make_spec(
                files=37, name=f"j{size}-{workers}", mini_batch_size=size, workers=workers
            )
            result = run_job(spec)
            assert (result.status, result.counts.items_ok) == ("Completed", 37)
            outputs.add(out(spec))
            assert listing(spec) == ["_SUCCESS.json", "predictions.csv"]
    assert [data.decode().splitlines() for data in outputs] == [lines_of(37)]


def test_success_says_what_was_written(make_spec: MakeSpec, run_job: RunJob, inline: Inline,
                                       tree_of: Tree) -> None:
    spec = replace(make_spec(files=7), hashes={"model": "m"})
    result = run_job(spec, inline(echo))
    said = json.loads(out(spec, "_SUCCESS.json"))
    assert said["counts"] == {
        "items": 7, "items_ok": 7, "items_failed": 0, "mini_batches": 3, "rows": 7,
    }
    (file,) = said["files"]
    assert file["sha256"] == tree_of(spec.output)["predictions.csv"]
    assert file["size_bytes"] == len(out(spec))
    assert said["errors"] is None
    assert said["hashes"]["model"] == "m"
    assert (said["run"]["job"], said["run"]["epoch"]) == ("job", 1)
    stored = json.loads(LocalStore(Path(spec.work)).read("result/1.json"))
    assert (stored["status"], stored["version"]) == ("Completed", 1) == (result.status, 1)
    progress = json.loads(LocalStore(Path(spec.work)).read("progress.json"))
    assert (progress["state"], progress["counts"]["items_ok"]) == ("Completed", 7)


def test_names_of_any_bytes_are_processed_and_come_out_exactly(
    make_spec: MakeSpec, run_job: RunJob, tmp_path: Path
) -> None:
    folder = os.fsencode(tmp_path / "odd")
    names = [
        b"new\nline", b'quo"te', b"com,ma", b"sp ace", b"\xff\xfe.bin", b"x" * 255, b"-rf", b"=cmd",
        b"sub/new\nline", b"sub.txt", b"\xc3\xa9" * 100,
    ]
    for name in names:
        os.makedirs(os.path.dirname(folder + b"/" + name), exist_ok=True)
        with open(folder + b"/" + name, "wb") as file:
            file.write(name)
    spec = make_spec("""
        import os

        def init():
            global OUT
            OUT = os.environ["AZUREML_BI_OUTPUT_PATH"]

        def run(mini_batch):
            for path in mini_batch:
                if "sub/" not in path:
                    open(os.path.join(OUT, os.path.basename(path)), "w").close()
                assert os.fsencode(path).endswith(open(path, "rb").read())
                if path.endswith(".bin"):
                    raise ValueError(path)
            return [os.fsencode(path).hex() for path in mini_batch]
    """, input=Path(os.fsdecode(folder)), mini_batch_size=2)
    assert run_job(spec).status == "Completed"
    scored = [bytes.fromhex(line)[len(folder) + 1:] for line in out(spec).decode().split()]
    assert scored == sorted(name for name in names if not name.endswith(b".bin"))
    (error,) = errors(spec)
    assert os.fsencode(error["item"]) == b"\xff\xfe.bin"
    published = [os.fsencode(name) for name in listing(spec)]
    assert set(published) == {
        name for name in names if b"/" not in name and not name.endswith(b".bin")
    } | {b"_SUCCESS.json", b"predictions.csv", b"errors.jsonl"}


def test_a_single_file_is_an_input_too(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, write_input: Callable[[int], Path]
) -> None:
    path = write_input(3) / "0001.txt"
    spec = make_spec(input=path, input_type="uri_file")
    run_job(spec, inline(echo))
    assert out(spec) == b"0001.txt=1\n"


# -- failures


def failing(*numbers: int) -> Callable[[list[str], Path], list[str]]:
    def run(paths: list[str], folder: Path) -> list[str]:
        for path in paths:
            if int(Path(path).stem) in numbers:
                raise ValueError(f"bad {Path(path).name}")
        return echo(paths, folder)

    return run


FAILING = """
    import os

    def init():
        pass

    def run(mini_batch):
        rows = []
        for path in mini_batch:
            if open(path).read() in ("5", "50", "99"):
                raise ValueError("bad " + os.path.basename(path))
            rows.append(os.path.basename(path) + "=" + open(path).read())
        return rows
"""


def test_items_up_to_the_threshold_fail_by_name_and_the_job_completes(
    make_spec: MakeSpec, run_job: RunJob
) -> None:
    spec = make_spec(FAILING, files=100, mini_batch_size=10, error_threshold=3, max_retries=1)
    result = run_job(spec)
    assert result.status == "Completed"
    assert (result.counts.items_ok, result.counts.items_failed) == (97, 3)
    good = [line for number, line in enumerate(lines_of(100)) if number not in (5, 50, 99)]
    assert out(spec).decode().splitlines() == good
    found = errors(spec)
    assert [error["item"] for error in found] == ["0005.txt", "0050.txt", "0099.txt"]
    assert [error["mini_batch"] for error in found] == [0, 5, 9]
    assert found[0]["exception"] == "ValueError: bad 0005.txt"
    assert 'File "score.py", line 11, in run' in found[0]["traceback"]
    assert {error["kind"] for error in found} == {"Exception"}
    assert success(spec)["errors"]["name"] == "errors.jsonl"


def test_one_item_above_the_threshold_fails_the_job(
    make_spec: MakeSpec, run_job: RunJob
) -> None:
    spec = make_spec(FAILING, files=100, mini_batch_size=10, error_threshold=2)
    result = run_job(spec)
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "ErrorThresholdExceeded"
    assert "ValueError: bad 00" in result.error["message"]
    assert 'File "score.py"' in result.error["details"][0]["message"]
    assert listing(spec) == ["predictions.csv.partial"]
    rows = out(spec, "predictions.csv.partial").decode().splitlines()
    assert rows == [line for line in lines_of(100) if line in set(rows)]
    assert len(rows) == result.counts.rows


def test_a_job_in_which_nothing_succeeded_fails_whatever_its_threshold(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    spec = make_spec(files=4, error_threshold=-1)
    result = run_job(spec, inline(failing(0, 1, 2, 3)))
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "NoItemSucceeded"
    assert result.error["message"].endswith("ValueError: bad 0000.txt")
    assert listing(spec) == []


def test_an_empty_input_fails_at_once_and_again_when_resumed(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, tmp_path: Path
) -> None:
    spec = make_spec(files=0)
    (tmp_path / "input" / "link").symlink_to("/etc")
    for epoch in (1, 2):
        result = run_job(spec, inline(echo))
        assert (result.status, result.epoch) == ("Failed", epoch)
        assert result.error is not None
        assert result.error["code"] == "NoInput"
        assert spec.input in result.error["message"]
    assert listing(spec) == []


def test_an_input_that_is_not_there_is_named(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, tmp_path: Path
) -> None:
    spec = make_spec(input=tmp_path / "nothing")
    result = run_job(spec, inline(echo))
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "InputUnreadable"
    assert "nothing" in result.error["message"]


@pytest.mark.parametrize("name", [
    "predictions.csv", "_SUCCESS.json", "errors.jsonl", "predictions.csv.partial",
])
def test_an_existing_output_is_refused_before_any_work(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, name: str
) -> None:
    spec = make_spec()
    Path(spec.output).mkdir(parents=True)
    (Path(spec.output) / name).write_text("mine")
    with pytest.raises(Conflict, match=f"already has a {name}") as caught:
        run_job(spec, inline(echo))
    assert caught.value.code == "OutputExists"
    assert listing(spec) == [name]
    assert out(spec, name) == b"mine"
    assert not Path(spec.work).exists()


def test_too_few_rows_count_as_failed_and_more_are_fine(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    def run(paths: list[str], folder: Path) -> list[str]:
        rows = echo(paths, folder)
        return rows[:1] if "0003.txt" in paths[0] else [*rows, "one more"]

    spec = make_spec(files=9)
    result = run_job(spec, inline(run))
    assert (result.counts.items_ok, result.counts.items_failed, result.counts.rows) == (7, 2, 9)
    (error,) = errors(spec)
    assert (error["kind"], error["rows_missing"], error["mini_batch"]) == ("RowsMissing", 2, 1)
    assert [item["item"] for item in error["items"]] == ["0003.txt", "0004.txt", "0005.txt"]
    assert out(spec).decode().splitlines()[4] == "0003.txt=3"


def test_init_that_fails_fails_the_job_with_the_users_traceback(
    make_spec: MakeSpec, run_job: RunJob
) -> None:
    spec = make_spec("def init():\n    raise KeyError('weights')\n\ndef run(x):\n    return x\n",
                     workers=4, files=20)
    result = run_job(spec)
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "InitFailed"
    assert "KeyError: 'weights'" in result.error["message"]
    assert 'File "score.py", line 2, in init' in result.error["details"][0]["message"]
    assert listing(spec) == []


def test_crashes_and_hangs_cost_only_their_items(make_spec: MakeSpec, run_job: RunJob) -> None:
    spec = make_spec("""
        import ctypes, os, time

        def init():
            pass

        def run(mini_batch):
            for path in mini_batch:
                number = int(open(path).read())
                if number == 4:
                    ctypes.string_at(0)
                if number == 9:
                    time.sleep(1000)
                if number == 13:
                    os._exit(5)
            return [os.path.basename(path) + "=" + open(path).read() for path in mini_batch]
    """, files=16, mini_batch_size=2, timeout_s=0.4)
    result = run_job(spec)
    assert result.status == "Completed"
    assert [(e["item"], e["kind"]) for e in errors(spec)] == [
        ("0004.txt", "Crashed"), ("0009.txt", "Timeout"), ("0013.txt", "Exited"),
    ]
    assert all('File "score.py"' in e["traceback"] for e in errors(spec)[:2])
    good = [line for number, line in enumerate(lines_of(16)) if number not in (4, 9, 13)]
    assert out(spec).decode().splitlines() == good


# -- files of the script


def with_files(paths: list[str], folder: Path) -> list[str]:
    for path in paths:
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub" / f"{Path(path).stem}.out").write_text(f"of {Path(path).name}")
    return echo(paths, folder)


def test_files_of_the_script_are_published_under_their_names(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    spec = make_spec(files=5)
    run_job(spec, inline(with_files))
    assert listing(spec) == ["_SUCCESS.json", "predictions.csv", "sub"]
    for number in range(5):
        assert out(spec, f"sub/{number:04d}.out") == f"of {number:04d}.txt".encode()
    names = [file["name"] for file in success(spec)["files"]]
    assert names == [f"sub/{number:04d}.out" for number in range(5)] + ["predictions.csv"]
    for folder in ("segments", "files", "staging"):
        assert not (Path(spec.work) / folder).exists()


def test_files_of_failed_attempts_are_not_published(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    attempts: Counter[str] = Counter()

    def run(paths: list[str], folder: Path) -> list[str]:
        rows = with_files(paths, folder)
        attempts[paths[0]] += 1
        (folder / f"{Path(paths[0]).stem}-{attempts[paths[0]]}").write_text("x")
        if attempts[paths[0]] == 1:
            raise ValueError("once")
        return rows

    spec = make_spec(files=6, max_retries=1)
    assert run_job(spec, inline(run)).status == "Completed"
    assert listing(spec) == ["0000-2", "0003-2", "_SUCCESS.json", "predictions.csv", "sub"]


def test_the_same_file_from_two_mini_batches_is_published_once(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    def run(paths: list[str], folder: Path) -> list[str]:
        (folder / "labels.txt").write_text("the same")
        return echo(paths, folder)

    spec = make_spec(files=9)
    assert run_job(spec, inline(run)).status == "Completed"
    assert out(spec, "labels.txt") == b"the same"


def test_one_name_with_different_content_fails_the_job_and_names_both(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    def run(paths: list[str], folder: Path) -> list[str]:
        (folder / "result.txt").write_text("same" if "0006" not in paths[0] else "other")
        return echo(paths, folder)

    spec = make_spec(files=9)
    result = run_job(spec, inline(run))
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "OutputNameClash"
    assert result.error["target"] == "result.txt"
    assert "mini-batches 0 and 2 both wrote 'result.txt'" in result.error["message"]
    assert listing(spec) == ["predictions.csv.partial"]


@pytest.mark.parametrize("name", ["predictions.csv", "_SUCCESS.json", "errors.jsonl"])
def test_a_name_that_the_job_writes_itself_is_refused(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, name: str
) -> None:
    def run(paths: list[str], folder: Path) -> list[str]:
        (folder / name).write_text("mine")
        return echo(paths, folder)

    spec = make_spec(files=2)
    result = run_job(spec, inline(run))
    assert result.error is not None
    assert (result.status, result.error["code"]) == ("Failed", "OutputNameClash")
    assert name in result.error["message"]


def test_a_file_where_another_mini_batch_wants_a_folder_fails_the_job_by_name(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    def run(paths: list[str], folder: Path) -> list[str]:
        if "0000" in paths[0]:
            (folder / "a").write_text("file")
        else:
            (folder / "a").mkdir()
            (folder / "a" / "b").write_text("in a folder")
        return echo(paths, folder)

    spec = make_spec(files=2, mini_batch_size=1, workers=1)
    result = run_job(spec, inline(run))
    assert result.error is not None
    assert (result.status, result.error["code"]) == ("Failed", "OutputNameClash")
    assert "a/b" in result.error["message"]


@pytest.mark.parametrize("flush", ["FILE.flush()", "pass"])
@pytest.mark.parametrize("where", ["init", "run"])
def test_one_file_that_is_written_over_several_mini_batches_is_refused(
    make_spec: MakeSpec, run_job: RunJob, where: str, flush: str
) -> None:
    """Whether init() or the first run() opens it, flushed or not: nothing is lost silently."""
    spec = make_spec(f"""
        import os
        FILE = None

        def open_it():
            global FILE
            FILE = open(os.path.join(os.environ["AZUREML_BI_OUTPUT_PATH"], "all.txt"), "a")

        def init():
            {"open_it()" if where == "init" else "pass"}

        def run(mini_batch):
            if FILE is None:
                open_it()
            FILE.write(mini_batch[0])
            {flush}
            return mini_batch
    """, files=4, mini_batch_size=2, workers=1)
    result = run_job(spec)
    assert result.status == "Failed"
    assert result.error is not None
    assert "all.txt" in result.error["message"]
    assert "one file per mini-batch" in result.error["message"]
    assert "_SUCCESS.json" not in listing(spec)


def test_summary_only_counts_and_writes_no_predictions(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    spec = make_spec(files=8, output_action="summary_only")
    result = run_job(spec, inline(with_files))
    assert (result.status, result.counts.rows) == ("Completed", 8)
    assert listing(spec) == ["_SUCCESS.json", "sub"]
    assert success(spec)["counts"]["rows"] == 8


# -- cancel, stop, resume


def test_a_job_that_is_canceled_keeps_what_was_done_as_partial(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    spec = make_spec(files=40, mini_batch_size=1, workers=4)

    def run(paths: list[str], folder: Path) -> list[str]:
        if "0030" in paths[0]:
            LocalStore(Path(spec.work)).create(CANCEL, b"")
        return echo(paths, folder)

    result = run_job(spec, inline(run))
    assert result.status == "Canceled"
    assert result.error is not None
    assert result.error["code"] == "Canceled"
    assert listing(spec) == ["predictions.csv.partial"]
    rows = out(spec, "predictions.csv.partial").decode().splitlines()
    assert len(rows) == result.counts.rows < 40
    assert set(rows) < set(lines_of(40))
    LocalStore(Path(spec.work)).remove(CANCEL)
    assert run_job(spec, inline(echo)).status == "Completed"
    assert out(spec).decode().splitlines() == lines_of(40)
    assert listing(spec) == ["_SUCCESS.json", "predictions.csv"]


@pytest.mark.parametrize("size", [1, 4])
def test_a_stopped_job_is_resumed_without_doing_anything_twice(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, size: int
) -> None:
    whole = make_spec(files=60, name="whole", mini_batch_size=size)
    run_job(whole, inline(failing(7, 21)))
    calls: Counter[str] = Counter()

    def run(paths: list[str], folder: Path) -> list[str]:
        calls.update(paths)
        return failing(7, 21)(paths, folder)

    spec = make_spec(files=60, name="stopped", mini_batch_size=size, workers=4)
    for turns in (2, 1):   # of the driver's loop
        turn = itertools.count()
        with pytest.raises(Interrupted, match="can be resumed"):
            run_job(spec, inline(run), is_stopped=lambda turn=turn, n=turns: next(turn) > n)
        assert listing(spec) == []
    done = {
        path for record in valid_records(LocalStore(Path(spec.work)))
        if record["k"] == "commit" and len(record["r"]) == 2
        for number in range(record["r"][0] * size, record["r"][1] * size)
        for path in [f"{spec.input}/{number:04d}.txt"]
    }
    before = Counter(calls)
    result = run_job(spec, inline(run))
    assert (result.status, result.epoch) == ("Completed", 3)
    assert done
    assert all(calls[path] == before[path] for path in done)
    assert out(spec) == out(whole)
    assert success(spec) == success(whole) | {"errors": success(spec)["errors"]}
    assert [e["item"] for e in errors(spec)] == [e["item"] for e in errors(whole)]


DRIVER = """
import json, sys
from pathlib import Path
from inferay.engine.batch.driver import Driver
from inferay.engine.batch.pool import LocalPool
from inferay.engine.batch.spec import JobSpec
Driver(JobSpec.from_dict(json.loads(Path(sys.argv[1]).read_bytes())), LocalPool).run()
"""

SLOW = """
    import os, time

    def init():
        pass

    def run(mini_batch):
        time.sleep(float(os.environ["NAP"]))
        with open(os.environ["CALLS"], "a") as file:
            file.write("".join(path + "\\n" for path in mini_batch))
        return [f"{os.path.basename(path)}={open(path).read()}" for path in mini_batch]
"""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_driver_that_is_killed_at_any_moment_is_resumed_exactly(
    make_spec: MakeSpec, run_job: RunJob, tmp_path: Path, wait_for: Callable[..., None], seed: int
) -> None:
    chance = random.Random(seed)
    calls = tmp_path / "calls"
    calls.touch()
    spec = make_spec(SLOW, files=40, mini_batch_size=1, environment_variables={
        "CALLS": str(calls), "NAP": "0.01",
    })
    (tmp_path / "spec.json").write_bytes(spec.to_bytes())
    store = LocalStore(Path(spec.work))
    begun = 0
    for _ in range(2):
        begun += chance.randint(0, 18)
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(tmp_path / "spec.json")],
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        wait_for(lambda n=begun: len(calls.read_text().splitlines()) >= n and epochs(store))
        driver.kill()
        driver.wait()
    done = [
        f"{spec.input}/{number:04d}.txt"
        for record in _committed(store) for number in range(*record["r"])
    ]
    before = Counter(calls.read_text().splitlines())
    result = run_job(spec)
    assert result.status == "Completed"
    after = Counter(calls.read_text().splitlines())
    assert out(spec).decode().splitlines() == lines_of(40)
    assert all(after[path] == before[path] for path in done)
    assert len(done) == len(set(done))
    assert max(after.values()) <= 3


def _committed(store: LocalStore) -> list[dict[str, Any]]:
    """Return what the next driver will find done: claim an epoch as it would."""
    claim(store, {})[1].close()
    return [record for record in valid_records(store) if record["k"] == "commit"]


@pytest.mark.parametrize(("size", "workers"), [(1, 4), (4, 2), (10, 1)])
def test_killed_workers_give_the_same_output_for_any_mini_batch_size_and_number_of_workers(
    make_spec: MakeSpec, tmp_path: Path, size: int, workers: int
) -> None:
    """Workers are killed from outside, over and over, while the job runs."""
    from inferay.engine.batch.pool import LocalPool

    calls = tmp_path / "calls"
    calls.touch()
    spec = make_spec(SLOW, files=60, mini_batch_size=size, workers=workers, environment_variables={
        "CALLS": str(calls), "NAP": "0.05",
    })
    chance = random.Random(5)
    pools: list[LocalPool] = []
    kills = 0
    next_kill = 5

    def make_pool(*args: Any) -> LocalPool:
        pools.append(LocalPool(*args))
        return pools[0]

    def kill_sometimes() -> bool:
        nonlocal kills, next_kill
        if pools and kills < 6 and len(calls.read_text().splitlines()) >= next_kill:
            os.kill(chance.choice(pools[0].pids()), 9)
            kills += 1
            next_kill += chance.randint(1, 6)
        return False

    def careful() -> bool:
        try:
            return kill_sometimes()
        except ProcessLookupError:   # that one was dead already
            return False

    result = Driver(spec, make_pool, is_stopped=careful).run()
    assert result.status == "Completed"
    assert (result.counts.items_ok, result.counts.items_failed) == (60, 0)
    assert result.counts.deaths >= 1
    assert out(spec).decode().splitlines() == lines_of(60)


# -- a newer driver (crashes at every step: tests/chaos)


def eventful(paths: list[str], folder: Path) -> list[str]:
    """Give rows, files, and failed items."""
    if any("0004" in path for path in paths):
        raise ValueError("bad")
    return with_files(paths, folder)


def few(make_spec: MakeSpec, name: str) -> JobSpec:
    return make_spec(files=6, name=name, mini_batch_size=2, workers=1)


def outcome(spec: JobSpec, tree_of: Tree) -> Any:
    tree = tree_of(spec.output)
    del tree["_SUCCESS.json"], tree["errors.jsonl"]
    failed = [(e["item"], e["exception"]) for e in errors(spec)]
    said = success(spec)
    del said["errors"]   # how many attempts there were may differ
    return tree, failed, said


def test_an_older_driver_cannot_claim_nor_publish(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    spec = make_spec(files=4)
    facts = {"began": facts_of(spec)}
    claim(LocalStore(Path(spec.work)), facts, epoch=5)[1].close()
    with pytest.raises(SupersededError, match="epoch 5"):
        run_job(spec, inline(echo), epoch=5)
    with pytest.raises(SupersededError, match="epoch 5"):
        run_job(spec, inline(echo), epoch=4)
    assert listing(spec) == []
    assert run_job(spec, inline(echo), epoch=7).epoch == 7


def test_a_completed_job_that_is_run_again_stays_as_it_is(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, tree_of: Tree
) -> None:
    spec = make_spec(files=6)
    run_job(spec, inline(with_files))
    before = tree_of(spec.output)
    result = run_job(spec, inline(with_files))
    assert (result.status, result.counts.items_ok) == ("Completed", 6)
    assert tree_of(spec.output) == before


# -- the disk


@contextmanager
def full_disk(*names: str) -> Iterator[None]:
    """Let writes of names with one of these parts fail for want of space."""
    publish, append = LocalStore._publish, LocalLog.append

    def refuse(self: LocalStore, name: str, *rest: Any) -> None:
        if any(part in name for part in names):
            raise OSError(28, "No space left on device", name)
        publish(self, name, *rest)

    def refuse_append(self: LocalLog, data: bytes) -> None:
        if "append" in names and "/journal/" in str(self._file.name):
            raise OSError(28, "No space left on device", "journal")
        append(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "_publish", refuse)
        patch.setattr(LocalLog, "append", refuse_append)
        yield


@pytest.mark.parametrize("names", [
    ("manifest",), ("append",), ("segments",), ("predictions.csv",), ("sub/",), ("_SUCCESS",),
    ("errors.jsonl", "predictions"),
])
def test_a_full_disk_fails_the_job_as_such_and_it_can_be_resumed(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, tree_of: Tree, names: tuple[str, ...]
) -> None:
    whole = few(make_spec, "whole")
    run_job(whole, inline(eventful))
    spec = few(make_spec, "full")
    with full_disk(*names):
        result = run_job(spec, inline(eventful))
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "StorageFull"
    assert "make space, then resume" in result.error["message"]
    assert "_SUCCESS.json" not in listing(spec)
    assert run_job(spec, inline(eventful)).status == "Completed"
    assert outcome(spec, tree_of) == outcome(whole, tree_of)


def test_a_disk_too_full_even_for_the_result_is_an_error_with_a_message(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    spec = few(make_spec, "full")
    with full_disk("predictions", "result/"), pytest.raises(JobError, match="make space") as caught:
        run_job(spec, inline(eventful))
    assert caught.value.code == "StorageFull"
    assert run_job(spec, inline(eventful)).status == "Completed"


def test_a_journal_that_is_damaged_under_the_driver_never_gives_a_short_output(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(files=12, mini_batch_size=1, workers=1)
    journal = Path(spec.work) / "journal" / "1"
    close = LocalLog.close

    def close_and_damage(self: LocalLog) -> None:
        """All is written, and nothing is read again yet."""
        close(self)
        monkeypatch.undo()
        data = bytearray(journal.read_bytes())
        data[len(data) * 9 // 10] ^= 1
        journal.write_bytes(bytes(data))

    monkeypatch.setattr(LocalLog, "close", close_and_damage)
    result = run_job(spec, inline(echo))
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "DataLost"
    assert "predictions.csv" not in listing(spec)
    assert run_job(spec, inline(echo)).status == "Completed"
    assert out(spec).decode().splitlines() == lines_of(12)


# -- what was published is withdrawn when the job does not complete


def poisoned(paths: list[str], folder: Path) -> list[str]:
    if paths[0].endswith("0003.txt"):
        raise ValueError("bad")
    return echo(paths, folder)


def test_a_job_that_fails_while_it_publishes_leaves_no_predictions(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(mini_batch_size=1)
    create = LocalStore.create

    def full(self: LocalStore, name: str, data: bytes) -> None:
        if name == "_SUCCESS.json":
            raise OSError(errno.ENOSPC, "No space left on device", name)
        create(self, name, data)

    monkeypatch.setattr(LocalStore, "create", full)
    result = run_job(spec, inline(poisoned))
    assert (result.status, (result.error or {})["code"]) == ("Failed", "StorageFull")
    assert listing(spec) == ["predictions.csv.partial"]
    monkeypatch.undo()
    assert run_job(spec, inline(poisoned)).status == "Completed"
    assert listing(spec) == ["_SUCCESS.json", "errors.jsonl", "predictions.csv"]


def test_a_published_output_stays_whatever_fails_afterwards(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the last request is lost, and what is left over cannot be deleted."""
    spec = make_spec(mini_batch_size=1)
    create = LocalStore.create

    def lost(self: LocalStore, name: str, data: bytes) -> None:
        create(self, name, data)
        if name == "_SUCCESS.json":
            raise StorageUnavailable("no answer")

    def undeletable(self: LocalStore, prefix: str) -> None:
        raise StorageUnavailable(f"cannot delete {prefix}")

    for number, (name, broken) in enumerate([("create", lost), ("delete", undeletable)]):
        spec = make_spec(mini_batch_size=1, name=f"job{number}")
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, name, broken)
            result = run_job(spec, inline(poisoned))
        assert (result.status, result.error, result.counts.items_failed) == ("Completed", None, 1)
        for _ in range(2):
            assert listing(spec) == ["_SUCCESS.json", "errors.jsonl", "predictions.csv"]
            assert run_job(spec, inline(poisoned)).status == "Completed"


@pytest.mark.parametrize("place", ["", "/out", "/../link/out"])
def test_an_output_in_the_input_is_refused_before_anything_is_written(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, tmp_path: Path, place: str
) -> None:
    spec = make_spec()
    (tmp_path / "link").symlink_to(spec.input)
    spec = replace(spec, output=f"{spec.input}{place}")
    with pytest.raises(InvalidInput, match="lies in the input"):
        run_job(spec, inline(echo))
    assert not Path(spec.work).exists()
    assert len(os.listdir(spec.input)) == 10


def test_an_output_that_is_a_file_is_refused(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    spec = make_spec()
    Path(spec.output).parent.mkdir()
    Path(spec.output).write_text("theirs")
    with pytest.raises(Conflict, match="is no folder; choose another output path"):
        run_job(spec, inline(echo))
    assert not Path(spec.work).exists()


def test_an_output_that_was_taken_before_the_first_driver_is_the_jobs_end(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    spec = make_spec()
    Path(spec.output).mkdir(parents=True)
    (Path(spec.output) / "predictions.csv").write_text("theirs")
    for epoch in (1, 2):   # a resume does no work for an output that it cannot have
        result = run_job(spec, inline(echo), epoch=epoch)
        assert (result.status, (result.error or {})["code"]) == ("Failed", "OutputExists")
        assert (result.counts.items_ok, out(spec)) == (0, b"theirs")
    (Path(spec.output) / "predictions.csv").unlink()
    assert run_job(spec, inline(echo), epoch=3).status == "Completed"


def test_an_output_that_cannot_be_looked_at_is_the_jobs_end(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("the storage does not answer", code="StorageUnavailable")

    monkeypatch.setattr("inferay.engine.batch.output.check_free", fail)
    result = run_job(make_spec(), inline(echo), epoch=1)
    assert (result.status, (result.error or {})["code"]) == ("Failed", "StorageUnavailable")


def test_a_file_that_someone_else_put_there_meanwhile_is_never_touched(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline
) -> None:
    spec = make_spec()

    def meddle(paths: list[str], folder: Path) -> list[str]:
        os.makedirs(spec.output, exist_ok=True)
        (Path(spec.output) / "predictions.csv").write_text("theirs")
        return echo(paths, folder)

    result = run_job(spec, inline(meddle))
    assert (result.status, (result.error or {})["code"]) == ("Failed", "OutputExists")
    assert out(spec) == b"theirs"


class NotedPool(LocalPool):
    """A pool that notes which workers were started before the manifest was sealed."""

    def __init__(self, work: str, early: list[int], settings_of: SettingsOf, events: Events):
        super().__init__(settings_of, events)
        self._store, self._early = LocalStore(Path(work)), early

    def start(self, slot: int) -> None:
        if not self._store.exists(SEAL):
            self._early.append(slot)
        super().start(slot)


@pytest.mark.parametrize(("files", "workers", "early"), [(9, 2, [0, 1]), (3, 2, [0])])
def test_workers_start_while_the_input_is_listed_but_none_without_a_mini_batch(
    make_spec: MakeSpec, run_job: RunJob, files: int, workers: int, early: list[int]
) -> None:
    spec = make_spec(files=files, workers=workers)
    found: list[int] = []
    result = run_job(spec, partial(NotedPool, spec.work, found))
    assert (result.status, result.counts.items_ok, found) == ("Completed", files, early)
    spec = make_spec(files=files, workers=workers, name="empty", input_type="uri_file",
                     input=Path(spec.input) / "none")
    found.clear()
    assert (run_job(spec, partial(NotedPool, spec.work, found)).status, found) == ("Failed", [])


def test_a_worker_whose_init_fails_while_the_input_is_listed_fails_the_job(
    make_spec: MakeSpec, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("def init():\n    raise ValueError('no model')\ndef run(mini_batch): ...")
    has_failed = threading.Event()

    class Slow(LocalPool):
        def __init__(self, settings_of: SettingsOf, events: Events) -> None:
            super().__init__(settings_of, events)
            put = events.put

            def noted(event: Any) -> None:
                put(event)
                if isinstance(event, WorkerStartFailed):
                    has_failed.set()

            self._events = SimpleNamespace(put=noted)   # type: ignore[assignment]

    seal = write_manifest

    def sealed_late(*args: Any, **kwargs: Any) -> Any:
        found = seal(*args, **kwargs)
        assert has_failed.wait(30)
        return found

    monkeypatch.setattr("inferay.engine.batch.driver.write_manifest", sealed_late)
    result = run_job(spec, Slow)
    assert result.status == "Failed"
    assert result.error is not None
    assert "no model" in str(result.error)


def test_workers_are_given_back_while_the_last_mini_batch_is_scored(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result], tmp_path: Path
) -> None:
    """All but the one that scores it, and one spare for its retry."""
    gate = tmp_path / "gate"
    spec = make_spec(
        f"""
        import os, time

        def init():   # all four are up before the first one scores
            open({str(tmp_path)!r} + f"/up-{{os.getpid()}}", "w").close()
            while sum(name.startswith("up-") for name in os.listdir({str(tmp_path)!r})) < 4:
                time.sleep(0.01)

        def run(mini_batch):
            while "0007" in mini_batch[0] and not os.path.exists({str(gate)!r}):
                time.sleep(0.01)
            return mini_batch
        """,
        files=8, mini_batch_size=1, workers=4,
    )
    pools: list[LocalPool] = []

    def make(settings_of: SettingsOf, events: Events) -> LocalPool:
        pools.append(LocalPool(settings_of, events))
        return pools[0]

    most = 0

    def is_stopped() -> bool:
        nonlocal most
        workers = len(pools[0].pids()) if pools else 0
        most = max(most, workers)
        if most == 4 and workers <= 2:
            gate.touch()
        return False

    result = run_job(spec, make, is_stopped=is_stopped)
    assert (result.status, result.counts.rows, most) == ("Completed", 8, 4), str(result)
    assert result.counts.deaths == 0
