from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Inferay, Served
from tests.cli.test_main import deployed

__all__ = ["deployed"]


def invoke(inferay: Inferay, *more: str) -> tuple[str, Path]:
    """Run a job to its end; return its name and output folder."""
    said = inferay("batch-endpoint", "invoke", "-n", "digits", "--input", "data", *more)
    assert said.code == 0, said.err
    name = said.json["name"]   # type: ignore[index]
    assert inferay("job", "stream", "-n", name).code == 0
    shown = inferay("job", "show", "-n", name).json
    return name, Path(shown["outputs"]["score"]["path"])   # type: ignore[index]


def test_verify_tells_an_output_that_was_changed(deployed: Inferay) -> None:
    name, output = invoke(deployed)
    said = deployed("job", "verify", "-n", name, "--query", "[].status", "-o", "tsv")
    assert (said.code, set(said.out.split())) == (0, {"ok"})
    (output / "predictions.csv").unlink()
    said = deployed("job", "verify", "-n", name)
    assert said.code == 1
    assert {"name": "output/predictions.csv", "status": "missing", "message": "it is gone"} \
        in said.json   # type: ignore[operator]
    assert said.err == f"error: job {name}: 1 of 7 checks failed: output/predictions.csv\n"


def test_errors_names_what_failed(deployed: Inferay, project: Path) -> None:
    script = project / "src" / "score.py"
    script.write_text(script.read_text().replace(
        "def run(mini_batch):\n", "def run(mini_batch):\n"
        "    if any(path.endswith(('3.txt', '5.txt')) for path in mini_batch):\n"
        "        raise ValueError('odd')\n"
    ))
    create = ("batch-deployment", "create", "-f", "deployment.yml", "-e", "digits", "-n", "grey")
    assert deployed(*create).code == 0
    name, output = invoke(deployed, "-d", "grey")
    said = deployed("job", "errors", "-n", name, "-o", "jsonl")
    assert (said.code, said.out.encode()) == (0, (output / "errors.jsonl").read_bytes())
    said = deployed("job", "errors", "-n", name, "--max-items", "1", "--query", "[].item")
    assert said.json == ["3.txt"]
    table = deployed("job", "errors", "-n", name, "-o", "table").out.splitlines()
    assert table[0].split() == ["Item", "MiniBatch", "Attempts", "Kind", "Exception"]
    assert table[2].split()[0] == "5.txt"
    assert table[2].endswith("ValueError: odd")
    assert deployed("job", "errors", "-n", name, "--max-items", "0").err == (
        "error: max_items: expected 1 to 100000, got 0\n"
    )


def test_a_job_without_failures_has_no_errors(deployed: Inferay) -> None:
    name, _ = invoke(deployed)
    assert deployed("job", "errors", "-n", name).json == []


def test_redrive_scores_what_failed_and_merges_it(deployed: Inferay, project: Path) -> None:
    script = project / "src" / "score.py"
    fixed = script.read_text()
    script.write_text(fixed.replace(
        "def run(mini_batch):\n", "def run(mini_batch):\n"
        "    if any(path.endswith('3.txt') for path in mini_batch):\n        raise ValueError\n"
    ))
    create = ("batch-deployment", "create", "-f", "deployment.yml", "-e", "digits", "-n", "green")
    assert deployed(*create).code == 0
    name, output = invoke(deployed, "-d", "green")
    assert len((output / "predictions.csv").read_text().splitlines()) == 9
    script.write_text(fixed)
    assert deployed(*create).code == 0
    setting = "settings.retry_settings.max_retries=2"
    said = deployed("job", "redrive", "-n", name, "--merge", "--set", setting)
    assert said.code == 0, said.err
    new = said.json["name"]   # type: ignore[index]
    assert deployed("job", "stream", "-n", new).code == 0
    shown = deployed("job", "show", "-n", new).json
    assert shown["redrive_of"] == name   # type: ignore[index]
    rows = Path(shown["outputs"]["score"]["path"], "predictions.csv")   # type: ignore[index]
    assert rows.read_text() == "".join(f"{number}.txt\n" for number in range(10))
    assert deployed("job", "verify", "-n", new).code == 0
    assert deployed("job", "redrive", "-n", new).err == (
        f"error: no item of job {new} failed: there is nothing to redrive\n"
    )


@pytest.mark.parametrize("command", ["verify", "redrive"])
def test_a_job_that_is_not_there_is_not_found(inferay: Inferay, command: str) -> None:
    said = inferay("job", command, "-n", "nothing")
    assert (said.code, "there is no job 'nothing'" in said.err) == (3, True)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/logs", "a/cancel", "a?x=1", "a\nb", "\x1b[31mred", "x" * 5000],
)
@pytest.mark.parametrize("command", ["show", "cancel", "resume", "errors", "verify"])
def test_what_is_no_name_is_refused_in_one_line(inferay: Inferay, command: str, name: str) -> None:
    said = inferay("job", command, "-n", name)
    assert (said.code, said.out) == (2, "")
    assert said.err.endswith("starting with a letter or a digit\n")
    assert said.err[:-1].isprintable()
    assert len(said.err) < 300


@pytest.mark.parametrize("arguments", [
    ("batch-endpoint", "show", "-n", "../jobs"), ("model", "show", "-n", "m", "--version", "1/2"),
    ("batch-endpoint", "invoke", "-n", "a/b", "--input", "data"),
    ("batch-deployment", "show", "-n", "..", "--endpoint-name", "digits"),
])
def test_no_name_leads_to_another_resource(inferay: Inferay, arguments: tuple[str, ...]) -> None:
    said = inferay(*arguments)
    assert (said.code, "is no name" in said.err) == (2, True), said


def test_a_message_is_one_line_of_bounded_length_whatever_it_repeats(inferay: Inferay) -> None:
    said = inferay("job", "list", "--query", "\x1b[31m\n" * 2000)
    assert said.code == 2
    assert said.err[:-1].isprintable()
    assert len(said.err) < 10_000


def test_a_broken_answer_is_told(served: Served, deployed: Inferay,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    name, _ = invoke(deployed)
    monkeypatch.setattr("inferay.control.verification.verify", _boom)
    said = deployed("job", "verify", "-n", name)
    assert (said.code, said.err) == (6, "error: the job cannot be verified: bang\n")


def _boom(*_: object, **__: object) -> object:
    raise RuntimeError("bang")
