from __future__ import annotations

import hashlib
import os
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from inferay.engine.batch.driver import Driver, PoolFactory
from inferay.engine.batch.hand import Hand
from inferay.engine.batch.manifest import write_manifest
from inferay.engine.batch.messages import (
    Lease,
    ReceiptArrived,
    WorkerReady,
    WorkerSeen,
    WorkerSettings,
)
from inferay.engine.batch.plan import by_count
from inferay.engine.batch.pool import Events, LocalPool, SettingsOf
from inferay.engine.batch.result import Result
from inferay.engine.batch.scorer import Scorer
from inferay.engine.batch.spec import JobSettings, JobSpec, WorkerSpec
from inferay.engine.batch.staging import Staging
from inferay.engine.batch.store import LocalStore, open_store
from inferay.engine.batch.units import Unit
from inferay.engine.storage import Access
from tests.engine.batch.workers import Watched

#: Processes that live as long as the session.
SERVERS = ("ceph-mon", "ceph-osd", "radosgw", "node")

#: A script that gives a row per file: its name and its content.
ECHO = """
    import os

    def init():
        pass

    def run(mini_batch):
        return [f"{os.path.basename(path)}={open(path).read()}" for path in mini_batch]
"""


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test its own temp dir; afterwards, no process and no worker folder is left."""
    temp = tmp_path / "temp"
    temp.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temp))
    yield
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s:
        children = [child for child in psutil.Process().children(recursive=True)
                    if child.name() not in SERVERS]
        left = [path.name for path in temp.glob("inferay-*")]
        if not children and not left:
            return
        time.sleep(0.01)
    assert (children, left) == ([], [])


@pytest.fixture
def write_script(tmp_path: Path) -> Callable[..., Path]:
    """Write files of a code folder, dedented; `score` is score.py."""

    def write(score: str = ECHO, **others: str) -> Path:
        code = tmp_path / "code"
        code.mkdir(exist_ok=True)
        for name, text in {"score": score, **others}.items():
            (code / f"{name}.py").write_text(textwrap.dedent(text))
        return code

    return write


@pytest.fixture
def write_input(tmp_path: Path) -> Callable[..., Path]:
    """Write an input folder of `count` files `0000.txt`, …, each with its number in it."""

    def write(count: int) -> Path:
        folder = tmp_path / "input"
        folder.mkdir(exist_ok=True)
        for number in range(count):
            path = folder / f"{number:04d}.txt"
            if not path.exists():   # a file's time stamp is part of the manifest
                path.write_text(str(number))
        return folder

    return write


@pytest.fixture
def make_spec(
    tmp_path: Path, write_script: Callable[..., Path], write_input: Callable[..., Path]
) -> Callable[..., JobSpec]:
    """Make a spec; jobs of one test share code and input, each has its own work and output."""

    def make(
        script: str = ECHO, *, files: int = 10, name: str = "job", workers: int = 2,
        input: Path | None = None, input_type: str = "uri_folder",
        memory_bytes: int | None = None, **settings: Any,
    ) -> JobSpec:
        settings = {"mini_batch_size": 3, "max_retries": 0, "timeout_s": 20.0} | settings
        return JobSpec(
            name=name, input=str(input or write_input(files)), input_type=input_type,
            output=str(tmp_path / name / "output"), work=str(tmp_path / name / "work"),
            logs=str(tmp_path / name / "logs"), code=str(write_script(script)),
            scoring_script="score.py", settings=JobSettings(**settings),
            workers=WorkerSpec(count=workers, memory_bytes=memory_bytes),
        )

    return make


@pytest.fixture
def run_job() -> Callable[..., Result]:
    """Run a job, in processes of this machine unless a pool is given."""

    def run(
        spec: JobSpec, pool: PoolFactory = LocalPool, *, epoch: int | None = None,
        is_stopped: Callable[[], bool] = lambda: False, access: Access | None = None,
    ) -> Result:
        return Driver(spec, pool, epoch, is_stopped, access or Access()).run()

    return run


class InlinePool:
    """A pool that scores in the driver's own thread: no processes, so a job takes milliseconds."""

    def __init__(
        self, settings_of: SettingsOf, events: Events,
        run: Callable[[list[str], Path], Any], column_types: Mapping[str, str] | None = None,
    ) -> None:
        self._settings_of, self._events, self._run = settings_of, events, run
        self._column_types = column_types
        self._scorers: dict[int, Scorer] = {}
        self._hand = Hand(Path(tempfile.mkdtemp(prefix="hand-")) / "hand", create=True)

    def start(self, slot: int) -> None:
        settings = self._settings_of(slot, 0)
        store = open_store(settings.store, settings.access)
        name = settings.segment.removeprefix("segments/")
        folder = (
            store.path(f"staging/{name}") if isinstance(store, LocalStore)
            else Path(tempfile.mkdtemp(prefix="staging-")) / "folder"
        )
        staging = Staging(folder, store, f"files/{name}")

        def run(paths: list[str]) -> Any:
            return self._run(paths, staging.folder)

        self._scorers[slot] = Scorer(
            settings, run, staging, self._hand, store, column_types=self._column_types
        )
        self._events.put(WorkerReady(slot))

    def lease(self, slot: int, lease: Lease) -> None:
        receipt, durable = self._scorers[slot].score(lease)
        durable.result()
        self._events.put(ReceiptArrived(slot, receipt))

    def kill(self, slot: int) -> None:
        raise NotImplementedError

    def release(self, slot: int) -> None:
        self._scorers.pop(slot).close()

    def look(self, slot: int) -> None:
        self._events.put(WorkerSeen(slot, *self._hand.read(), 0))

    def waiting_for(self) -> str | None:
        return None

    def close(self) -> None:
        while self._scorers:
            self._scorers.popitem()[1].close()


@pytest.fixture
def inline() -> Callable[..., PoolFactory]:
    """Return a maker of pools that call `run(paths, output folder)` in the driver's thread."""

    def make(run: Callable[[list[str], Path], Any]) -> PoolFactory:
        return lambda settings_of, events: InlinePool(settings_of, events, run)

    return make


@pytest.fixture
def tree_of() -> Callable[[str | Path], dict[str, str]]:
    """Return the sha256 of every file below a folder, by relative path."""

    def tree(folder: str | Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path(folder).rglob("*")) if path.is_file()
        }

    return tree


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Wait until a condition holds; fails after `limit_s`."""

    def wait(condition: Callable[[], Any], limit_s: float = 10.0) -> None:
        until_s = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < until_s, "the condition did not come true in time"
            time.sleep(0.005)

    return wait


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "work")
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.txt").write_text("1")
        os.utime(folder / f"{number}.txt", ns=(0, 0))
    units = [Unit(f"{number}.txt", 1, 0) for number in range(12)]
    write_manifest(store, by_count(units, 2), root=str(folder), epoch=1)
    return store


@pytest.fixture
def start(
    tmp_path: Path, write_script: Callable[..., Path], store: LocalStore
) -> Iterator[Callable[..., Watched]]:
    """Start a worker process with this script; stopped at the end."""
    started: list[Watched] = []

    def start_one(script: str, **facts: Any) -> Watched:
        settings = WorkerSettings(
            code_dir=str(write_script(script)), scoring_script="score.py", model_dir="/model",
            root=str(tmp_path / "in"), store=str(store.root),
            segment=f"segments/e1-w{len(started)}-0",
            logs=str(tmp_path / "logs"), log_name="process000",
        )
        started.append(Watched(replace(settings, **facts)))
        return started[-1]

    yield start_one
    for one in started:
        one.worker.stop()
        assert not psutil.pid_exists(one.pid)
