"""Redrive through the whole engine, with and without merging, for every format of rows."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferay.engine.batch.driver import Driver, PoolFactory
from inferay.engine.batch.result import Interrupted, Result
from inferay.engine.batch.spec import JobSpec, Redrive
from inferay.errors import Conflict
from tests.chaos.steps import Crash, crash, steps

Make = Callable[..., JobSpec]
Run = Callable[..., Result]
Inline = Callable[..., PoolFactory]

FORMATS = ["rows.csv", "rows.jsonl", "rows.parquet"]


def number_of(path: str) -> int:
    return int(os.path.basename(path)[:4])


def scoring(*, poison: set[int] = frozenset(), short: set[int] = frozenset(),   # type: ignore[assignment]
            files: bool = False) -> Callable[[list[str], Path], list[Any]]:
    """Return a `run()` that raises on some items and leaves out the rows of others."""

    def run(paths: list[str], folder: Path) -> list[Any]:
        numbers = [number_of(path) for path in paths]
        if poison & set(numbers):
            raise ValueError("poison")
        if files:
            (folder / f"{numbers[0]}.txt").write_text(f"{numbers}")
        return [
            {"n": n, "half": n / 2 if n % 2 else None} for n in numbers if n not in short
        ]

    return run


def redrive(old: JobSpec, name: str, *, merge: bool = True, **settings: Any) -> JobSpec:
    """Return the spec of a redrive of a job, with places of its own."""
    base = Path(old.output).parent.parent / name
    return replace(
        old, name=name, output=str(base / "output"), work=str(base / "work"),
        logs=str(base / "logs"), settings=replace(old.settings, **settings),
        redrive=Redrive(
            old.name, old.work, old.output,
            old.settings.output_file_name if old.settings.output_action == "append_row" else "",
            merge,
        ),
    )


def rows(spec: JobSpec) -> bytes:
    return (Path(spec.output) / spec.settings.output_file_name).read_bytes()


def success(spec: JobSpec) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(spec.output) / "_SUCCESS.json").read_bytes())
    return found


def errors(spec: JobSpec) -> list[dict[str, Any]]:
    path = Path(spec.output) / "errors.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.mark.parametrize("name", FORMATS)
def test_a_merged_redrive_is_equal_to_a_job_that_never_failed(
    make_spec: Make, run_job: Run, inline: Inline, tree_of: Callable[[str], dict[str, str]],
    name: str,
) -> None:
    undisturbed = make_spec(files=40, name="undisturbed", output_file_name=name)
    run_job(undisturbed, inline(scoring()))
    old = make_spec(files=40, name="old", output_file_name=name)
    run_job(old, inline(scoring(poison={0, 5, 6, 12, 13, 14, 22}, short={25, 39})))
    before = tree_of(old.output)
    new = redrive(old, "new")
    assert run_job(new, inline(scoring())).status == "Completed"
    assert rows(new) == rows(undisturbed)
    assert success(new)["counts"] == success(undisturbed)["counts"]
    assert success(new)["columns"] == success(undisturbed)["columns"]
    assert success(new)["run"]["redrive_of"] == "old"
    assert tree_of(old.output) == before
    assert errors(new) == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_redrive_of_a_redrive_scores_what_still_failed(
    make_spec: Make, run_job: Run, inline: Inline, name: str
) -> None:
    undisturbed = make_spec(files=40, name="undisturbed", output_file_name=name)
    run_job(undisturbed, inline(scoring()))
    old = make_spec(files=40, name="old", output_file_name=name)
    run_job(old, inline(scoring(poison={3, 4, 5, 20, 33}, short={10})))
    second = redrive(old, "second")
    run_job(second, inline(scoring(poison={4, 33})))
    assert [(one["item"], one["mini_batch"]) for one in errors(second)] == [
        ("0004.txt", 1), ("0033.txt", 11),
    ]
    assert success(second)["counts"] == {
        "items": 40, "items_ok": 38, "items_failed": 2, "mini_batches": 14, "rows": 38,
    }
    third = redrive(second, "third")
    run_job(third, inline(scoring(short={33})))
    assert [one.get("items") for one in errors(third)] == [[{"item": "0033.txt"}]]
    fourth = redrive(third, "fourth")
    run_job(fourth, inline(scoring()))
    assert rows(fourth) == rows(undisturbed)
    assert success(fourth)["counts"] == success(undisturbed)["counts"]


def test_without_merging_the_output_has_the_failed_items_alone(
    make_spec: Make, run_job: Run, inline: Inline
) -> None:
    old = make_spec(files=12, name="old")
    run_job(old, inline(scoring(poison={4, 11}, short={7})))
    new = redrive(old, "new", merge=False)
    run_job(new, inline(scoring()))
    found = [json.loads(line)["n"] for line in rows(new).splitlines()]
    assert found == [4, 6, 7, 8, 11]
    assert success(new)["counts"]["mini_batches"] == 3
    again = redrive(new, "again")
    assert run_job(again, inline(scoring())).error["code"] == "NothingToRedrive"   # type: ignore[index]


@given(st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_failures_any_mini_batch_sizes_and_any_workers_merge_to_the_same(
    make_spec: Make, run_job: Run, inline: Inline, data: st.DataObject
) -> None:
    files = 30
    some = st.sets(st.integers(0, files - 1), max_size=8)
    name = data.draw(st.sampled_from(FORMATS))
    key = os.urandom(6).hex()
    undisturbed = make_spec(files=files, name=f"{key}u", output_file_name=name)
    run_job(undisturbed, inline(scoring()))
    poison, short = data.draw(some), data.draw(some)
    old = make_spec(
        files=files, name=f"{key}o", output_file_name=name, mini_batch_size=data.draw(
            st.integers(1, 9)), workers=data.draw(st.integers(1, 3)),
    )
    run_job(old, inline(scoring(poison=poison, short=short)))
    for turn in range(3):
        if not success(old)["errors"]:
            break
        left = (data.draw(some) & (poison | short)) if turn < 2 else set()
        old = redrive(old, f"{key}{turn}")
        result = run_job(old, inline(scoring(poison=left)))
        if result.status == "Failed":   # all of it failed again
            assert (result.error or {})["code"] == "NoItemSucceeded"
            return
    assert rows(old) == rows(undisturbed)


def test_files_of_the_script_are_merged_too(
    make_spec: Make, run_job: Run, inline: Inline
) -> None:
    old = make_spec(files=9, name="old", output_action="summary_only")
    run_job(old, inline(scoring(poison={4}, short={7}, files=True)))
    assert "4.txt" not in os.listdir(old.output)
    new = redrive(old, "new")
    run_job(new, inline(scoring(files=True)))
    own = {name: (Path(new.output) / name).read_text() for name in os.listdir(new.output)
           if name.endswith(".txt")}
    assert own == {
        "0.txt": "[0, 1, 2]", "3.txt": "[3]", "4.txt": "[4]", "5.txt": "[5]",
        "6.txt": "[6, 7, 8]",
    }
    assert [file["name"] for file in success(new)["files"]] == sorted(own)
    assert success(new)["counts"]["rows"] == 9


def test_a_killed_redrive_goes_on_and_ends_with_the_same_bytes(
    make_spec: Make, run_job: Run, inline: Inline
) -> None:
    undisturbed = make_spec(files=60, name="undisturbed", output_file_name="rows.parquet")
    run_job(undisturbed, inline(scoring()))
    old = make_spec(files=60, name="old", output_file_name="rows.parquet")
    run_job(old, inline(scoring(poison=set(range(0, 60, 4)))))
    new = redrive(old, "new")
    scored: list[str] = []

    def count(paths: list[str], folder: Path) -> list[Any]:
        scored.extend(paths)
        return scoring()(paths, folder)

    with pytest.raises(Interrupted):
        run_job(new, inline(count), is_stopped=lambda: len(scored) >= 5)
    assert len(scored) < 15
    assert run_job(new, inline(scoring())).epoch == 2
    assert rows(new) == rows(undisturbed)


# -- what is refused


@pytest.fixture
def old(make_spec: Make, run_job: Run, inline: Inline) -> JobSpec:
    spec = make_spec(files=12, name="old")
    run_job(spec, inline(scoring(poison={4}, short={7})))
    return spec


def failed(spec: JobSpec, pool: PoolFactory) -> tuple[str, str]:
    result = Driver(spec, pool).run()
    assert result.status == "Failed"
    assert result.error is not None
    assert not Path(spec.output, "_SUCCESS.json").exists()
    return result.error["code"], result.error["message"]


def test_rows_that_were_changed_or_moved_are_not_merged(old: JobSpec, inline: Inline) -> None:
    path = Path(old.output) / "predictions.csv"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    code, said = failed(redrive(old, "new"), inline(scoring()))
    assert (code, "predictions.csv of job old was changed in its output" in said) == (
        "OutputChanged", True
    )
    path.unlink()
    assert "is gone from its output" in failed(redrive(old, "gone"), inline(scoring()))[1]
    (Path(old.output) / "_SUCCESS.json").unlink()
    assert failed(redrive(old, "none"), inline(scoring()))[0] == "OutputMissing"


@pytest.mark.parametrize(("was", "is_"), [("pandas", ""), ("pyarrow", ""), ("", "pandas")])
def test_rows_are_not_redriven_as_files_nor_files_as_rows(
    make_spec: Make, run_job: Run, inline: Inline, tmp_path: Path, was: str, is_: str
) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    (folder / "a.csv").write_text("v\n" + "".join(f"{number}\n" for number in range(6)))
    (folder / "b.csv").write_text("v\n7\n")

    def run(batch: Any, _: Path) -> list[int]:
        if isinstance(batch, list):
            is_poison = any("b.csv" in path for path in batch)
        else:
            is_poison = "3" in [str(value) for value in batch["v"]]
        if is_poison:
            raise ValueError("poison")
        return [0] * len(batch)

    split: dict[str, Any] = {"split": "rows", "mini_batch_size": "4 rows"}
    old = make_spec(name="tables", input=folder, table=was, **(split if was else {}))
    assert run_job(old, inline(run)).counts.items_failed >= 1
    error = failed(redrive(old, "new", table=is_, **(split if is_ else {"split": "file"})),
                   inline(run))
    assert error[0] == "RedriveImpossible"


def test_rows_that_were_changed_while_the_redrive_ran_are_not_merged(
    old: JobSpec, inline: Inline
) -> None:
    def change(paths: list[str], folder: Path) -> list[Any]:
        (Path(old.output) / "predictions.csv").write_bytes(b"other")
        return [1] * len(paths)

    assert failed(redrive(old, "new"), inline(change))[0] == "OutputChanged"


def test_a_failed_item_that_changed_since_is_refused_and_others_may_change(
    old: JobSpec, inline: Inline
) -> None:
    data = Path(old.input)
    (data / "0000.txt").write_text("other")
    assert Driver(redrive(old, "fine"), inline(scoring())).run().status == "Completed"
    (data / "0004.txt").write_text("other")
    (data / "0007.txt").unlink()
    code, said = failed(redrive(old, "new"), inline(scoring()))
    assert code == "InputChanged"
    assert "items of job old changed since: 0004.txt had 1 bytes" in said
    assert "0007.txt is gone" in said


def test_new_rows_whose_type_does_not_fit_to_the_old_ones_end_the_redrive(
    make_spec: Make, run_job: Run, inline: Inline
) -> None:
    old = make_spec(files=12, name="old", output_file_name="rows.parquet")
    run_job(old, inline(scoring(poison={4})))
    code, said = failed(
        redrive(old, "new"), inline(lambda paths, folder: [{"n": "text"}] * len(paths))
    )
    assert code == "ColumnTypesDiffer"
    assert said.startswith("job old and mini-batch 0: column 'n' is int64 in some rows and string")


def test_a_redrive_goes_on_only_as_what_it_began(old: JobSpec, inline: Inline) -> None:
    new = redrive(old, "new")
    calls = iter(range(1000))
    with pytest.raises(Interrupted):
        Driver(new, inline(scoring()), is_stopped=lambda: next(calls) >= 0).run()
    with pytest.raises(Conflict, match="redrive was"):
        Driver(redrive(old, "new", merge=False), inline(scoring())).run()
    assert Driver(new, inline(scoring())).run().status == "Completed"


def test_a_redrive_that_dies_at_any_step_is_followed_by_one_that_ends_with_the_same_bytes(
    make_spec: Make, run_job: Run, inline: Inline
) -> None:
    old = make_spec(files=9, name="old", output_file_name="rows.parquet")
    run_job(old, inline(scoring(poison={1, 5}, short={8})))
    whole = redrive(old, "whole")
    run_job(whole, inline(scoring(poison={5})))
    for at in itertools.count():
        new = redrive(old, f"new{at}")
        with steps(at, "before", crash) as dying, contextlib.suppress(Crash):
            run_job(new, inline(scoring(poison={5})))
        assert run_job(new, inline(scoring(poison={5}))).status == "Completed", dying.names[-1]
        assert rows(new) == rows(whole), f"step {at}, {dying.names[-1]}"
        assert errors(new) == errors(whole)
        if at >= len(dying.names):   # it lived: there are no more steps
            break
    assert at > 10
