"""A disk that fills up in the middle of a job: a real one, of a few megabytes."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from inferay.engine.batch.journal import valid_records
from inferay.engine.batch.result import Result
from inferay.engine.batch.spec import JobSpec
from inferay.engine.batch.store import LocalStore
from tests.services import skip_without

#: A row of 3 to 9 kB per file, and how often each was scored.
WIDE = """
    import os

    def init():
        pass

    def run(mini_batch):
        with open(os.environ["CALLS"], "a") as file:
            file.write("".join(path + "\\n" for path in mini_batch))
        return [os.path.basename(path) + "=" + open(path).read() * 3_000 for path in mini_batch]
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB, of which 7 are taken by a file `ballast`."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    skip_without(f"a small disk cannot be mounted: {done.stderr}" if done.returncode else None)
    (folder / "ballast").write_bytes(bytes(7 << 20))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_job_whose_disk_fills_up_fails_as_such_and_goes_on_exactly_when_there_is_space(
    disk: Path, tmp_path: Path, make_spec: Callable[..., JobSpec], run_job: Callable[..., Result]
) -> None:
    calls = tmp_path / "calls"
    spec = replace(
        make_spec(WIDE, files=200, mini_batch_size=1,
                  environment_variables={"CALLS": str(calls)}),
        work=str(disk / "work"), output=str(disk / "output"),
    )
    result = run_job(spec)
    assert result.status == "Failed"
    assert result.error is not None
    assert result.error["code"] == "StorageFull"
    assert "make space, then resume the job" in result.error["message"]
    assert not (disk / "output" / "predictions.csv").exists()
    (disk / "ballast").unlink()
    done = {
        f"{spec.input}/{number:04d}.txt"
        for record in valid_records(LocalStore(Path(spec.work)))
        if record["k"] == "commit" for number in range(record["r"][0], record["r"][1])
    }
    before = Counter(calls.read_text().splitlines())
    assert 20 < len(done) < 190   # there was space for somewhat more than half
    result = run_job(spec)
    assert (result.status, result.counts.items_ok) == ("Completed", 200)
    rows = (disk / "output" / "predictions.csv").read_text().splitlines()
    assert rows == [f"{number:04d}.txt={str(number) * 3_000}" for number in range(200)]
    after = Counter(calls.read_text().splitlines())
    assert all(after[path] == before[path] for path in done)
    assert sorted(os.listdir(disk / "output")) == ["_SUCCESS.json", "predictions.csv"]
