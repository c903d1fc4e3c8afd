"""A slot's process and its standby, with real processes."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from inferay.engine.batch import host as hosts
from inferay.engine.batch.host import WorkerHost
from inferay.engine.batch.messages import (
    Event,
    Failure,
    Lease,
    WorkerReady,
    WorkerSettings,
)
from inferay.engine.batch.pool import Events, LocalPool, SettingsOf
from inferay.engine.batch.result import Result
from inferay.engine.batch.spec import JobSpec
from inferay.engine.batch.store import LocalStore
from inferay.engine.batch.units import Range
from tests.engine.batch.workers import LIMIT_S, script_of

#: Crashes on demand; how often `init()` ran is the number of lines in MARKS.
SCRIPT = script_of(
    """
    if os.path.exists(CRASH):
        os._exit(3)
    return mini_batch
    """,
    init="""
    with open(MARKS, "a") as file:
        file.write(f"{os.getpid()}\\n")
    if os.path.exists(BROKEN):
        raise ValueError("no model")
    """,
    top="CRASH, MARKS, BROKEN = os.environ['CRASH'], os.environ['MARKS'], os.environ['BROKEN']",
)


class Hosted:
    """A host whose words can be waited for."""

    def __init__(self, settings: WorkerSettings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.heard: queue.Queue[dict[str, Any]] = queue.Queue()
        self.deaths: queue.Queue[Failure] = queue.Queue()
        self.host = WorkerHost()
        self.starts = 0

    def start(self) -> dict[str, Any]:
        settings = replace(self.settings, segment=f"segments/e1-w0-{self.starts}")
        self.starts += 1
        self.host.start(
            settings, on_message=self.heard.put,
            on_death=lambda failure, _: self.deaths.put(failure),
        )
        return self.heard.get(timeout=LIMIT_S)

    def score(self) -> dict[str, Any]:
        self.host.lease(Lease(1, Range(0, 1), 1, 60.0))
        return self.heard.get(timeout=LIMIT_S)

    def crash(self) -> None:
        (self.folder / "crash").touch()
        self.host.lease(Lease(1, Range(0, 1), 1, 60.0))
        self.deaths.get(timeout=LIMIT_S)
        (self.folder / "crash").unlink()

    def inits(self) -> list[int]:
        marks = self.folder / "marks"
        return [int(line) for line in marks.read_text().split()] if marks.exists() else []


@pytest.fixture
def hosted(
    tmp_path: Path, write_script: Callable[..., Path], store: LocalStore
) -> Iterator[Hosted]:
    names = {name.upper(): str(tmp_path / name) for name in ("crash", "marks", "broken")}
    one = Hosted(WorkerSettings(
        code_dir=str(write_script(SCRIPT)), scoring_script="score.py", model_dir="",
        root=str(tmp_path / "in"), store=str(store.root), segment="", logs=str(tmp_path / "logs"),
        log_name="process000", environment_variables=names,
    ), tmp_path)
    yield one
    one.host.stop()


def test_there_is_no_standby_before_the_first_crash(hosted: Hosted) -> None:
    assert hosted.start()["standby"] is False
    assert hosted.score()["standby"] is False
    assert len(hosted.inits()) == 1


def test_a_crash_brings_up_a_standby_that_takes_the_next_ones_place(
    hosted: Hosted, wait_for: Callable[..., None]
) -> None:
    hosted.start()
    hosted.crash()
    assert hosted.start()["k"] == "ready"
    wait_for(lambda: hosted.score()["standby"])
    first, second, third = hosted.inits()
    serving = hosted.host.pid
    assert serving in (second, third)
    hosted.crash()
    assert hosted.start()["k"] == "ready"
    assert hosted.host.pid in (second, third)
    assert hosted.host.pid != serving
    receipt = hosted.score()["receipt"]
    assert receipt["done"][0]["segment"] == "segments/e1-w0-1-standby.rows"
    assert not psutil.pid_exists(first)


def test_a_kill_from_outside_brings_up_no_standby(hosted: Hosted) -> None:
    hosted.start()
    hosted.host.kill()
    hosted.deaths.get(timeout=LIMIT_S)
    hosted.start()
    assert hosted.score()["standby"] is False
    assert len(hosted.inits()) == 2


@pytest.mark.parametrize("change", ["keeps_standby", "memory"])
def test_there_is_no_standby_where_it_has_no_room(
    hosted: Hosted, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if change == "memory":
        monkeypatch.setattr(hosts, "available_bytes", lambda: 0)
    else:
        hosted.settings = replace(hosted.settings, keeps_standby=False)
    hosted.start()
    hosted.crash()
    hosted.start()
    assert hosted.score()["standby"] is False
    assert len(hosted.inits()) == 2


def test_a_standby_that_cannot_start_harms_nothing(
    hosted: Hosted, wait_for: Callable[..., None]
) -> None:
    hosted.start()
    hosted.crash()
    hosted.start()
    wait_for(lambda: hosted.score()["standby"])
    (hosted.folder / "broken").touch()
    hosted.crash()
    assert hosted.start()["k"] == "ready"   # the warm one; a new one is started, and fails
    wait_for(lambda: len(hosted.inits()) == 4)
    wait_for(lambda: hosted.host._standby is not None and hosted.host._standby.has_failed)
    assert hosted.score()["standby"] is False
    (hosted.folder / "broken").unlink()
    hosted.crash()
    assert hosted.start()["k"] == "ready"


def test_a_standby_ends_when_crashes_have_become_rare(
    hosted: Hosted, wait_for: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosted.start()
    hosted.crash()
    hosted.start()
    wait_for(lambda: hosted.score()["standby"])
    monkeypatch.setattr(hosts, "STANDBY_S", 0.0)
    assert hosted.score()["standby"] is False
    (standby,) = set(hosted.inits()[1:]) - {hosted.host.pid}
    wait_for(lambda: not psutil.pid_exists(standby))


class TimedPool(LocalPool):
    """Notes how long each start took until the worker was ready."""

    def __init__(self, settings_of: SettingsOf, events: Events) -> None:
        super().__init__(settings_of, self)   # type: ignore[arg-type]
        self.events = events
        self.started_s = 0.0
        self.waits_s: list[float] = []

    def start(self, slot: int) -> None:
        self.started_s = time.monotonic()
        super().start(slot)

    def put(self, event: Event) -> None:
        if isinstance(event, WorkerReady):
            self.waits_s.append(time.monotonic() - self.started_s)
        self.events.put(event)


def test_restarts_of_a_job_whose_items_crash_are_hidden(
    make_spec: Callable[..., JobSpec], run_job: Callable[..., Result]
) -> None:
    """A slow `init()` (of waiting, as for a model's download) is waited for now and then only."""
    bad, init_s = {30, 70, 110, 150}, 1.0
    spec = make_spec(f"""
        import os, time

        def init():
            time.sleep({init_s})

        def run(mini_batch):
            time.sleep(0.06)
            if int(open(mini_batch[0]).read()) in {bad}:
                os._exit(1)
            return mini_batch
    """, files=200, mini_batch_size=1, workers=1, max_retries=1)
    pools: list[TimedPool] = []

    def make(settings_of: SettingsOf, events: Events) -> TimedPool:
        pools.append(TimedPool(settings_of, events))
        return pools[0]

    result = run_job(spec, make)
    assert (result.status, result.counts.items_failed) == ("Completed", len(bad))
    crashes = 2 * len(bad)
    first, *restarts_s = pools[0].waits_s
    assert first >= init_s
    assert (result.counts.deaths, len(restarts_s)) == (crashes, crashes)
    hidden = [wait_s for wait_s in restarts_s if wait_s < init_s / 2]
    assert len(hidden) >= crashes / 2, restarts_s
