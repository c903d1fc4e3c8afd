from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inferay.engine.batch.dispatch import Counts
from inferay.engine.batch.journal import SupersededError
from inferay.engine.batch.result import Interrupted, Result
from inferay.engine.batch.spec import JobSpec
from inferay.errors import JobError, Unavailable
from inferay.jobs.__main__ import main


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    spec = JobSpec(
        name="j", input="/in", input_type="uri_folder", output="/out",
        work=str(tmp_path / "work"), logs=str(tmp_path / "logs"), code="/code",
        scoring_script="s.py",
    )
    path = tmp_path / "spec.json"
    path.write_bytes(spec.to_bytes())
    return path


def fake_run(monkeypatch: pytest.MonkeyPatch, outcome: Result | Exception) -> list[Any]:
    """Let the engine end with this; return what it is called with."""
    calls: list[Any] = []

    def run(spec: JobSpec, *, epoch: int | None, is_stopped: Any, access: Any) -> Result:
        calls.append((spec, epoch))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("inferay.engine.batch.runner.run", run)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return calls


def result(status: str, error: dict[str, Any] | None = None) -> Result:
    counts = Counts(items_ok=3, items_failed=1, rows=3)
    return Result(status, 2, "/out", counts, error=error, seconds=1.25)


def test_help_names_the_commands_and_a_wrong_one_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments, code in ((["--help"], 0), (["run", "--help"], 0), ([], 2), (["walk"], 2)):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == code
    assert "python -m inferay.jobs run" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "content", "said"), [
    ("spec.json", None, "spec.json"),
    ("spec.json", b"{", "spec.json"),
    ("mine.json", b'{"format": "inferay.job", "version": 1}', "no job spec"),
    ("spec.yml", None, "spec.yml"),
    ("spec.yml", b"inptu: ./data\n", "spec.yml:1"),
    ("spec.yml", b"\tinput: x\n", "spec.yml:1"),
    ("spec.yml", b"- 1\n", "spec.yml"),
])
def test_a_wrong_spec_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["run", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert said in captured.err


def test_as_a_process_it_ends_with_2_and_one_line_and_without_ray(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", "-m", "inferay.jobs", "run", "none.json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert (done.returncode, len(lines)) == (2, 1)
    assert not any(line.split("|")[-1].strip() == "ray" for line in done.stderr.splitlines())


def test_logs_that_cannot_be_written_are_one_line(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("a file")
    assert main(["run", str(spec)]) == 2
    assert capsys.readouterr().err.startswith("cannot write the job's log")


def test_a_completed_job_ends_with_0_and_says_its_outcome(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = fake_run(monkeypatch, result("Completed"))
    assert main(["run", str(spec), "--epoch", "2"]) == 0
    assert [(s.name, epoch) for s, epoch in calls] == [("j", 2)]
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "job j: /in -> /out",
        "job j: Completed, 3 items ok, 1 failed, 3 rows in 1.2 s; output: /out",
    ]
    assert (tmp_path / "logs" / "driver.txt").read_text() == said


def test_a_failed_job_ends_with_1_and_shows_the_traceback_first(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = JobError("it failed", details="Traceback of score.py").as_dict()
    fake_run(monkeypatch, result("Failed", error))
    assert main(["run", str(spec)]) == 1
    said = capsys.readouterr().out
    assert said.index("Traceback of score.py") < said.index("it failed") < said.index("Failed, 3")


@pytest.mark.parametrize(("outcome", "code"), [
    (Interrupted("stopped"), 130), (SupersededError("a newer one"), 130),
    (JobError("no"), 1), (Unavailable("no Ray"), 6),
])
def test_an_end_without_a_result_has_an_exit_code_and_one_line(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    outcome: Exception, code: int,
) -> None:
    fake_run(monkeypatch, outcome)
    assert main(["run", str(spec)]) == code
    captured = capsys.readouterr()
    assert (captured.out + captured.err).count("\n") == 2
    assert "Traceback" not in captured.out + captured.err


def test_an_error_of_ours_is_in_the_jobs_log_before_it_ends_the_process(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_run(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        main(["run", str(spec)])
    assert "ZeroDivisionError: a bug" in (tmp_path / "logs" / "driver.txt").read_text()


def test_the_stored_spec_is_the_one_that_runs(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_run(monkeypatch, result("Completed"))
    main(["run", str(spec)])
    assert json.loads(calls[0][0].to_bytes()) == json.loads(spec.read_bytes())
