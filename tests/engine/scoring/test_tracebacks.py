from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inferay.engine.scoring.script import ScoringScript
from inferay.engine.scoring.tracebacks import (
    EXCEPTION_CHARS_MAX,
    TRACEBACK_CHARS_MAX,
    describe_exception,
    user_traceback,
)

Load = Callable[..., ScoringScript]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class NoText(Exception):
    def __str__(self) -> str:
        return 3   # type: ignore[return-value]


def raised(load: Load, body: str) -> BaseException:
    script = load(f"""
import json

def init():
    pass

def run(mini_batch):
{body}
""")
    try:
        script.run([])
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


@pytest.mark.parametrize(("error", "line"), [
    (ValueError("a\n  b\tc"), "ValueError: a b c"),
    (KeyError("k"), "KeyError: 'k'"),
    (ValueError(), "ValueError"),
    (SystemExit(3), "SystemExit: 3"),
    (subprocess.CalledProcessError(1, "x"), "subprocess.CalledProcessError: Command 'x' "
     "returned non-zero exit status 1."),
])
def test_an_exception_is_one_line(error: BaseException, line: str) -> None:
    assert describe_exception(error) == line


@pytest.mark.parametrize("cls", [Unprintable, NoText])
def test_an_exception_without_a_text_is_described_all_the_same(cls: type[Exception]) -> None:
    error = cls("x")
    assert cls.__qualname__ in describe_exception(error)
    assert cls.__qualname__ in user_traceback(error, Path("/code"))


def test_a_huge_message_is_cut() -> None:
    error = ValueError("x" * 10_000_000)
    assert len(describe_exception(error)) < EXCEPTION_CHARS_MAX + 100
    assert len(user_traceback(error, Path("/code"))) < TRACEBACK_CHARS_MAX + 100


def test_frames_begin_at_the_users_and_paths_are_theirs(load: Load, code: Path) -> None:
    error = raised(load, "    return json.loads('{')")
    text = user_traceback(error, code)
    assert 'File "score.py", line 7, in run\n    return json.loads' in text
    assert str(code) not in text
    assert text.endswith("(char 1)\n")


def test_chained_exceptions_are_all_shown(load: Load, code: Path) -> None:
    text = user_traceback(raised(load, """
    try:
        {}["a"]
    except KeyError as error:
        raise ValueError("outer") from error
"""), code)
    assert "KeyError: 'a'" in text
    assert "direct cause" in text
    assert "ValueError: outer" in text
    assert str(code) not in text


def test_exceptions_that_refer_to_each_other_end(load: Load, code: Path) -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert "ValueError: a" in user_traceback(first, code)


def test_deep_recursion_is_short(load: Load, code: Path) -> None:
    text = user_traceback(raised(load, "    return run(mini_batch)"), code)
    assert "RecursionError" in text
    assert len(text) < TRACEBACK_CHARS_MAX + 100


def test_a_group_of_exceptions_is_shown(load: Load, code: Path) -> None:
    text = user_traceback(
        raised(load, '    raise ExceptionGroup("many", [ValueError("a"), TypeError("b")])'), code
    )
    assert "ValueError: a" in text
    assert "TypeError: b" in text


def test_a_link_to_the_code_folder_is_taken_out_of_paths_too(
    load: Load, code: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(code)
    error = raised(load, "    raise ValueError")
    assert 'File "score.py"' in user_traceback(error, tmp_path / "link")


def test_no_frame_of_ours_is_shown(code: Path) -> None:
    """As a worker runs it: from our own code, through the script, into a stand-in of ours."""
    (code / "score.py").write_text(
        "from azureml.core.model import Model\n\ndef init():\n    Model.get_model_path('m')\n\n"
        "def run(mini_batch):\n    return [1 / 0]\n"
    )
    program = """
import sys
from pathlib import Path
from inferay.engine.scoring.aliases import install_aliases
from inferay.engine.scoring.script import ScoringScript
from inferay.errors import UserCodeError
install_aliases()
try:
    ScoringScript.load(Path(sys.argv[1]), "score.py").init()
except UserCodeError as error:
    print(error.details)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(code)], capture_output=True, text=True,
        check=True, timeout=60, env={"PATH": "/usr/bin:/bin"},
    )
    lines = done.stdout.splitlines()
    assert 'File "score.py", line 4, in init' in done.stdout
    assert "FileNotFoundError: no model 'm': the deployment has none" in done.stdout
    assert not [line for line in lines if "inferay" in line or "engine/scoring" in line]
