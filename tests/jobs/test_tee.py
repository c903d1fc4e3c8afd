from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import pytest

from inferay.jobs.tee import Tee


def test_what_is_printed_goes_to_the_stream_and_to_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (sys.stdout, sys.stderr)
    with Tee(tmp_path / "logs" / "driver.txt"):
        print("out")
        print("err", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before
    print("after")
    assert (tmp_path / "logs" / "driver.txt").read_text() == "out\nerr\n"
    assert capsys.readouterr() == ("out\nafter\n", "err\n")


def test_a_second_driver_appends(tmp_path: Path) -> None:
    for word in ("one", "two"):
        with Tee(tmp_path / "driver.txt"):
            print(word)
    assert (tmp_path / "driver.txt").read_text() == "one\ntwo\n"


def test_an_exception_that_ends_the_driver_is_in_the_file_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Tee(tmp_path / "driver.txt"):
        print(1 / 0)
    text = (tmp_path / "driver.txt").read_text()
    assert text.startswith("Traceback")
    assert text.endswith("ZeroDivisionError: division by zero\n")


def test_a_logger_that_holds_on_to_the_stream_still_works_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Tee(tmp_path / "driver.txt"):
        handler = logging.StreamHandler()   # as Ray makes one while the job runs
        held = sys.stderr
    handler.emit(logging.LogRecord("ray", logging.INFO, "", 1, "late", None, None))
    held.flush()
    assert terminal.getvalue() == "late\n"
    assert (tmp_path / "driver.txt").read_text() == ""


def test_a_file_that_cannot_be_written_is_said_before_anything_is_redirected(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    before = (sys.stdout, sys.stderr)
    with pytest.raises(NotADirectoryError):
        Tee(tmp_path / "file" / "logs" / "driver.txt")
    assert (sys.stdout, sys.stderr) == before
