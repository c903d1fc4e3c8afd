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


@pytest.mark.parametrize("command", ["verify"])
def test_a_job_that_is_not_there_is_not_found(inferay: Inferay, command: str) -> None:
    said = inferay("job", command, "-n", "nothing")
    assert (said.code, "there is no job 'nothing'" in said.err) == (3, True)


def test_a_broken_answer_is_told(served: Served, deployed: Inferay,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    name, _ = invoke(deployed)
    monkeypatch.setattr("inferay.control.verification.verify", _boom)
    said = deployed("job", "verify", "-n", name)
    assert (said.code, said.err) == (6, "error: the job cannot be verified: bang\n")


def _boom(*_: object, **__: object) -> object:
    raise RuntimeError("bang")
