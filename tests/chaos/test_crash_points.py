"""A driver that dies, or is overtaken, at any step of the commit protocol: alone and in pairs.

In one process, without Ray, on local disk and on an object store's stand-in in memory. After each
crash a new driver goes on, and at the end an independent checker looks at the output. Of the pairs
a sample is taken, or all, if `CRASH_PAIRS=all` (`make chaos`).
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from inferay.engine.batch.driver import Driver
from inferay.engine.batch.journal import ObjectJournal, SupersededError, epochs
from inferay.engine.batch.spec import JobSettings, JobSpec, WorkerSpec
from inferay.engine.batch.store import MemoryStore, open_store
from inferay.engine.storage import Access
from tests.chaos.checker import expected_row, faults, is_poison
from tests.chaos.steps import WHEN, Crash, crash, steps
from tests.engine.batch.conftest import InlinePool

#: Steps that have to be among those enumerated: each part of the protocol.
PROTOCOL = (
    "create manifest/e1-part", "create manifest/sealed", "remove predictions.csv.partial",
    "create_stream out/item-0.txt", "create_stream predictions.csv", "create_stream errors.jsonl",
    "create _SUCCESS.json", "delete segments", "delete files", "create result/1.json",
)
PROTOCOL_OF = {
    "local": (*PROTOCOL, "create_log journal/1", "create_log segments/", "append", "take 1"),
    "s3": (*PROTOCOL, "create journal/000000000001", "create journal/000000000002",
           "create segments/", "create_stream files/"),
}

#: Of the steps that may follow a crash, so many are drawn for a second one.
SECONDS = 3


def run(paths: list[str], folder: Path) -> list[str]:
    """Give rows and files, and fail for a poison item."""
    rows = []
    for path in paths:
        content = Path(path).read_bytes()
        if is_poison(content):
            raise ValueError("a poison item")
        row = expected_row(os.path.basename(path), content).decode()
        (folder / "out").mkdir(exist_ok=True)
        (folder / "out" / f"{os.path.basename(path)}.txt").write_text(row)
        rows.append(row.rstrip("\n"))
    return rows


@pytest.fixture(params=["local", "s3"])
def job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Job]:
    """A job in memory where the system has a place for that: thousands of drivers are run."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="crash-", dir=memory if memory.is_dir() else tmp_path))
    (folder / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "temp"))
    # Packages' metadata takes longer to read than such a job takes.
    monkeypatch.setattr("inferay.engine.batch.publish.versions", lambda _: {})
    job = Job(folder, request.param)
    monkeypatch.setattr("inferay.engine.batch.store.open_filesystem", lambda uri, _: (uri, ""))
    monkeypatch.setattr("inferay.engine.batch.object_store.ObjectStore", job.memory)
    monkeypatch.setattr(ObjectJournal, "gather_s", 0.0)
    yield job
    shutil.rmtree(folder)


class Job:
    """A small job with rows, files and a poison item; each `begin` is a new one.

    Args:
        root: A folder.
        storage: `s3` if its work and output are on an object store; else `local`.
    """

    def __init__(self, root: Path, storage: str) -> None:
        self.storage = storage
        self._objects: dict[str, MemoryStore] = {}
        self.items, self.code, self.place = root / "items", root / "code", root / "job"
        self.items.mkdir()
        self.code.mkdir()
        (self.code / "score.py").write_text("")
        for number in range(5):
            content = b"poison" if number == 2 else b"%d" % number
            (self.items / f"item-{number}").write_bytes(content)
        place = "s3://bucket" if storage == "s3" else str(self.place)
        self.spec = JobSpec(
            name="job", input=str(self.items), input_type="uri_folder",
            output=f"{place}/output", work=f"{place}/work",
            logs=str(self.place / "logs"), code=str(self.code), scoring_script="score.py",
            settings=JobSettings(mini_batch_size=2, max_retries=0), workers=WorkerSpec(count=1),
        )

    def memory(self, uri: str, _: str) -> MemoryStore:
        """Return what stands in for the object store at an address."""
        return self._objects.setdefault(uri, MemoryStore(can_append=False))

    def begin(self) -> None:
        """Forget what was done."""
        shutil.rmtree(self.place, ignore_errors=True)
        self._objects.clear()

    @contextmanager
    def kept(self) -> Iterator[Callable[[], None]]:
        """Keep what is stored; gives a function that puts it there again."""
        objects = copied(self._objects)
        aside = self.place.with_name("kept")
        self.place.mkdir(exist_ok=True)   # the driver may have died before it wrote anything
        os.rename(self.place, aside)

        def again() -> None:
            self.begin()
            shutil.copytree(aside, self.place)
            self._objects.update(copied(objects))

        yield again
        shutil.rmtree(aside)

    def drive(self) -> str:
        """Run a driver to its end; return the job's state."""
        return Driver(self.spec, partial(InlinePool, run=run)).run().status

    def dies(self, at: int, when: str) -> list[str]:
        """Run a driver that dies at a step; return its steps, fewer than `at` if it lived."""
        with steps(at, when, crash) as dying:
            try:
                state = self.drive()
                assert dying.is_dead or state == "Completed"
            except Crash:
                pass
        return dying.names

    def ends_exact(self, what: str) -> None:
        """Run a driver to the end, and check the output."""
        assert self.drive() == "Completed", what
        assert self.faults() == [], what

    def faults(self) -> list[str]:
        """Return what the checker says of the output."""
        output = self.place / "output"
        if self.storage == "s3":
            shutil.rmtree(output, ignore_errors=True)
            store = self._objects[self.spec.output]
            for name in store.names(""):
                (output / name).parent.mkdir(parents=True, exist_ok=True)
                (output / name).write_bytes(store.read(name))
        return faults(self.items, output, "both")


def copied(objects: dict[str, MemoryStore]) -> dict[str, MemoryStore]:
    """Return equal stores that share nothing with these."""
    copies = {}
    for uri, store in objects.items():
        copies[uri] = MemoryStore(can_append=False)
        for name in store.names(""):
            copies[uri].create(name, store.read(name))
    return copies


def seconds(first: int, steps: int) -> Iterable[int]:
    """Return the steps at which a second driver dies, of those that are left after the first."""
    if os.environ.get("CRASH_PAIRS") == "all":
        return itertools.count()
    return sorted(random.Random(first).sample(range(max(SECONDS, steps - first)), SECONDS))


def test_the_steps_are_all_that_the_protocol_writes(job: Job) -> None:
    names = job.dies(-1, "before")
    for name in PROTOCOL_OF[job.storage]:
        assert any(found.startswith(name) for found in names), (name, names)


@pytest.mark.parametrize(("job", "when"), [
    *(("local", when) for when in WHEN),
    ("s3", "before"), ("s3", "after"),   # an object is put whole or not at all
], indirect=["job"])
def test_a_driver_that_dies_at_any_step_is_followed_by_one_that_ends_exact(
    job: Job, when: str
) -> None:
    for at in itertools.count():
        job.begin()
        names = job.dies(at, when)
        job.ends_exact(f"{when} step {at}, {names[-1]}")
        if at >= len(names):   # it lived: there are no more steps
            break
    assert at > 20


@pytest.mark.parametrize(("job", "when"), [   # after one step is before the next one
    ("local", "before"), ("local", "torn"), ("s3", "before"),
], indirect=["job"])
def test_two_drivers_that_die_at_any_two_steps_are_followed_by_one_that_ends_exact(
    job: Job, when: str
) -> None:
    pairs, count = 0, len(job.dies(-1, "before"))
    for first in itertools.count():
        job.begin()
        names = job.dies(first, when)
        if first >= len(names):
            break
        if when == "torn" and not names[first].startswith(("append", "create_stream")):
            continue
        with job.kept() as again:
            for second in seconds(first, count):
                again()
                others = job.dies(second, "before")
                what = f"{when} step {first}, {names[-1]}; before step {second}, {others[-1]}"
                job.ends_exact(what)
                if second >= len(others):
                    break
                pairs += 1
    # How many steps there are depends on how the journal's records are grouped, so on the machine.
    assert pairs > (40 if when == "before" else 5)


def test_a_driver_that_a_newer_one_overtakes_at_any_step_changes_nothing_more(job: Job) -> None:
    names = job.dies(-1, "before")
    claimed = next(at for at, name in enumerate(names) if "journal/" in name)
    stopped = 0
    for at in range(claimed + 1, len(names)):
        job.begin()
        with steps(at, "before", partial(job.ends_exact, f"before step {at}")) as overtaken:
            try:
                assert job.drive() == "Completed"
            except SupersededError:
                stopped += 1
        if at >= len(overtaken.names):   # its journal was written in fewer groups
            continue
        step = f"before step {at}, {overtaken.names[at]}"
        assert epochs(open_store(job.spec.work, Access())) == [1, 2], step
        assert job.faults() == [], step
    assert stopped > 5
