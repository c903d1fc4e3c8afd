"""A job that goes on is the one that was begun; what changed since is refused by name."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.batch.changes import changed_units, check_unchanged, facts_of
from inferay.engine.batch.driver import PoolFactory
from inferay.engine.batch.journal import epochs, valid_records
from inferay.engine.batch.result import Interrupted, Result
from inferay.engine.batch.spec import JobSpec, hash_path
from inferay.engine.batch.store import LocalStore
from inferay.engine.batch.units import Unit
from inferay.errors import Conflict, InferayError

MakeSpec = Callable[..., JobSpec]
RunJob = Callable[..., Result]
Inline = Callable[..., PoolFactory]


def echo(paths: list[str], _: Path) -> list[str]:
    return [f"{os.path.basename(path)}={Path(path).read_text()}" for path in paths]


@pytest.fixture
def begun(make_spec: MakeSpec, run_job: RunJob, inline: Inline, tmp_path: Path) -> JobSpec:
    """A job that was stopped in the middle, with some mini-batches done and a model."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "weights").write_text("1")
    spec = replace(
        make_spec(files=60, mini_batch_size=1, environment_variables={"TOKEN": "secret-1"}),
        model=str(tmp_path / "models" / "weights"), packages=("numpy==1",),
    )
    turns = itertools.count()
    with pytest.raises(Interrupted):
        run_job(spec, inline(echo), is_stopped=lambda: next(turns) > 2)
    assert any(record["k"] == "commit" for record in valid_records(LocalStore(Path(spec.work))))
    return spec


@pytest.fixture
def refused(run_job: RunJob, inline: Inline) -> Callable[[JobSpec], InferayError]:
    """Resume a job by hand, which has to be refused without any change."""

    def resume(spec: JobSpec) -> InferayError:
        before = epochs(LocalStore(Path(spec.work)))
        with pytest.raises(InferayError) as caught:
            run_job(spec, inline(echo))
        assert epochs(LocalStore(Path(spec.work))) == before
        return caught.value

    return resume


@pytest.mark.parametrize(("changes", "said"), [
    ({"mini_batch_size": 5}, "its settings changed since it began: mini_batch_size was 1 and is 5"),
    ({"timeout_s": 9.0, "max_retries": 7},
     "max_retries was 0 and is 7; timeout_s was 20.0 and is 9.0"),
    ({"environment_variables": {"TOKEN": "secret-2"}},
     "the environment variable TOKEN has another value"),
    ({"environment_variables": {"OTHER": "secret-2"}},
     "the environment variable OTHER is new; the environment variable TOKEN is gone"),
])
def test_a_changed_setting_is_refused_with_its_two_values(
    begun: JobSpec, refused: Callable[[JobSpec], InferayError], changes: dict[str, Any], said: str
) -> None:
    error = refused(replace(begun, settings=replace(begun.settings, **changes)))
    assert isinstance(error, Conflict)   # exit code 4
    assert (error.code, said in error.message) == ("SpecChanged", True), error.message
    assert "secret" not in error.message


@pytest.mark.parametrize(("changes", "said"), [
    ({"scoring_script": "other.py"}, "scoring_script was 'score.py' and is 'other.py'"),
    ({"output": "/elsewhere"}, "and is '/elsewhere'"),
    ({"packages": ("numpy==2",)}, "the package numpy==1 is gone; the package numpy==2 is new"),
    ({"hashes": {"environment": "e" * 64}},
     "the environment had the hash  and has eeeeeeeeeeee"),
])
def test_another_script_output_or_environment_is_refused(
    begun: JobSpec, refused: Callable[[JobSpec], InferayError], changes: dict[str, Any], said: str
) -> None:
    error = refused(replace(begun, **changes))
    assert (error.code, said in error.message) == ("SpecChanged", True), error.message


def test_what_may_change_is_where_things_lie_and_how_many_workers_there_are(
    begun: JobSpec, run_job: RunJob, inline: Inline, tmp_path: Path
) -> None:
    shutil.copytree(begun.code, tmp_path / "copy")
    shutil.copytree(tmp_path / "models", tmp_path / "elsewhere")
    moved = replace(
        begun, code=str(tmp_path / "copy"), model=str(tmp_path / "elsewhere" / "weights"),
        workers=replace(begun.workers, count=5),
    )
    assert run_job(moved, inline(echo)).status == "Completed"


def test_changed_code_is_refused_by_file_and_taken_when_it_is_undone(
    begun: JobSpec, refused: Callable[[JobSpec], InferayError], run_job: RunJob, inline: Inline
) -> None:
    script = Path(begun.code) / "score.py"
    before = script.read_text()
    script.write_text(before + "# better\n")
    (Path(begun.code) / "helper.py").write_text("")
    (Path(begun.code) / "__pycache__").mkdir()
    (Path(begun.code) / "__pycache__" / "score.pyc").write_text("")
    error = refused(begun)
    assert error.code == "CodeChanged"
    assert f"its code {begun.code} changed since it began: helper.py is new; " in error.message
    assert f"score.py had {len(before)} bytes of 20" in error.message
    assert f"and has {len(before) + 9} bytes of 20" in error.message
    script.write_text(before)   # with another time: its content counts
    (Path(begun.code) / "helper.py").unlink()
    assert run_job(begun, inline(echo)).status == "Completed"


def test_a_changed_model_is_refused_even_where_size_and_time_are_the_same(
    begun: JobSpec, refused: Callable[[JobSpec], InferayError], run_job: RunJob, inline: Inline
) -> None:
    model = Path(begun.model)
    found = model.stat()
    model.write_text("2")
    os.utime(model, ns=(found.st_atime_ns, found.st_mtime_ns))
    error = refused(begun)
    assert (error.code, "the content of a file" in error.message) == ("ModelChanged", True)
    model.unlink()
    assert f"its model {model} changed since it began: it is gone" in refused(begun).message
    model.write_text("1")
    assert run_job(begun, inline(echo)).status == "Completed"


def test_a_changed_input_is_refused_by_item_and_taken_when_it_is_undone(
    begun: JobSpec, refused: Callable[[JobSpec], InferayError], run_job: RunJob, inline: Inline
) -> None:
    folder = Path(begun.input)
    changed, gone = folder / "0003.txt", folder / "0005.txt"
    times = {path: path.stat().st_mtime_ns for path in (changed, gone)}
    changed.write_text("longer")
    gone.unlink()
    (folder / "0005-new.txt").write_text("x")
    error = refused(begun)
    assert error.code == "InputChanged"
    assert f"its input {folder} changed since it began: 0003.txt had 1 bytes of " in error.message
    assert "and has 6 bytes of" in error.message
    assert "; 0005-new.txt is new; 0005.txt is gone. Undo that and resume" in error.message
    (folder / "0005-new.txt").unlink()
    for path, number in ((changed, 3), (gone, 5)):
        path.write_text(str(number))
        assert "0003.txt had 1 bytes" in refused(begun).message   # for the time is another
    for path, time_ns in times.items():
        os.utime(path, ns=(time_ns, time_ns))
    assert run_job(begun, inline(echo)).status == "Completed"
    rows = (Path(begun.output) / "predictions.csv").read_text().split()
    assert rows == [f"{number:04d}.txt={number}" for number in range(60)]


def test_a_driver_that_was_told_its_epoch_records_the_refusal_as_the_jobs_end(
    begun: JobSpec, run_job: RunJob, inline: Inline
) -> None:
    """So a resume of its own accord that meets a change is not tried again and again."""
    path = Path(begun.input) / "0003.txt"
    time_ns = path.stat().st_mtime_ns
    path.write_text("longer")
    result = run_job(begun, inline(echo), epoch=2)
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "InputChanged"
    assert json.loads(LocalStore(Path(begun.work)).read("result/2.json"))["status"] == "Failed"
    kept = (Path(begun.output) / "predictions.csv.partial").read_text().split()
    assert kept
    assert kept == [f"{number:04d}.txt={number}" for number in range(len(kept))]
    path.write_text("3")
    os.utime(path, ns=(time_ns, time_ns))
    assert run_job(begun, inline(echo), epoch=3).status == "Completed"


def test_a_job_that_is_published_stays_so_whatever_changed_since(
    begun: JobSpec, run_job: RunJob, inline: Inline, refused: Callable[[JobSpec], InferayError]
) -> None:
    assert run_job(begun, inline(echo)).status == "Completed"
    rows = (Path(begun.output) / "predictions.csv").read_bytes()
    (Path(begun.input) / "0003.txt").unlink()
    assert refused(begun).code == "InputChanged"   # nobody takes the old output for a new one
    assert run_job(begun, inline(echo), epoch=3).status == "Completed"
    assert (Path(begun.output) / "predictions.csv").read_bytes() == rows


def test_an_output_in_the_folder_of_the_code_is_no_change_of_the_code(
    make_spec: MakeSpec, run_job: RunJob, inline: Inline, write_script: Callable[..., Path]
) -> None:
    code = write_script()
    spec = replace(
        make_spec(files=6), output=str(code / "out"), work=str(code / "out" / ".inferay"),
        hashes={"code": hash_path(code, without=(str(code / "out"),))},
    )
    with pytest.raises(Interrupted):
        run_job(spec, inline(echo), is_stopped=lambda: True)
    assert run_job(spec, inline(echo)).status == "Completed"


# -- listings


def units(*entries: tuple[str, int]) -> list[Unit]:
    return [Unit(path, size, 10**18) for path, size in entries]


def test_listings_are_compared_in_the_order_of_bytes() -> None:
    before = units(("a.txt", 1), ("a/b", 1), ("é", 1), ("\udcff", 1))
    assert list(changed_units(before, before)) == []
    assert list(changed_units(before, before[1:])) == ["a.txt is gone"]
    assert list(changed_units(before[:2], before)) == ["é is new", "\udcff is new"]
    assert list(changed_units([], [])) == []


def test_parts_of_a_file_are_one_file_and_an_etag_is_a_version() -> None:
    parts = [Unit("a", 9, "etag-1", ("bytes", at, at + 3)) for at in (0, 3, 6)]
    assert list(changed_units(parts, [Unit("a", 9, "etag-1")])) == []
    assert list(changed_units(parts, [Unit("a", 9, "etag-2")])) == [
        "a had 9 bytes of etag-1 and has 9 bytes of etag-2"
    ]


def test_a_difference_of_many_files_is_counted_in_little_memory() -> None:
    def many(size_bytes: int) -> Iterator[Unit]:
        return (Unit(f"{n:06d}", size_bytes, 0) for n in range(20_000))

    tracemalloc.start()
    assert sum(1 for _ in changed_units(many(1), many(2))) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_another_signature_is_a_change_that_is_told_without_either(make_spec: MakeSpec) -> None:
    spec = replace(make_spec(), input="https://host/x.csv?sig=geheim-1")
    began = facts_of(spec)
    check_unchanged(spec, began, (), ())
    with pytest.raises(Conflict, match=r"input was 'https://host/x\.csv\?… \(hash") as caught:
        check_unchanged(replace(spec, input="https://host/x.csv?sig=geheim-2"), began, (), ())
    with pytest.raises(Conflict) as other:
        check_unchanged(spec, began, (), [Unit("x.csv", 1, 1)])
    told = json.dumps([began, caught.value.as_dict(), other.value.as_dict()])
    assert "geheim" not in told
