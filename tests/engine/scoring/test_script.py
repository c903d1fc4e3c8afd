from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inferay.engine.scoring.script import ScoringScript
from inferay.errors import UserCodeError

Load = Callable[..., ScoringScript]
Write = Callable[[str, str], Path]

PLAIN = """
    def init():
        pass

    def run(mini_batch):
        return mini_batch
"""


def has_no_frame_of_ours(details: str | None) -> bool:
    assert details is not None
    ours = ("inferay/engine", "engine/scoring", "site-packages/inferay", "importlib._bootstrap")
    return not any(name in details for name in ours)


def test_init_runs_once_and_run_is_the_users(load: Load) -> None:
    script = load("""
        calls = []

        def init():
            calls.append("init")

        def run(mini_batch):
            return [*calls, *mini_batch]
    """)
    script.init()
    assert script.run(["a"]) == ["init", "a"]
    script.shutdown()   # optional


def test_shutdown_runs_where_there_is_one(load: Load) -> None:
    script = load(PLAIN + """
    ended = []

    def shutdown():
        ended.append(1)
    """)
    script.shutdown()
    assert sys.modules["score"].ended == [1]


@pytest.mark.usefixtures("clean_modules")
@pytest.mark.parametrize("name", ["engine", "jobs", "serve", "utils", "helpers", "client"])
def test_a_sibling_of_any_name_imports(load: Load, write: Write, name: str) -> None:
    write(f"{name}.py", "VALUE = 'mine'")
    script = load(f"""
        import {name}

        def init():
            pass

        def run(mini_batch):
            return [{name}.VALUE]
    """)
    try:
        assert script.run([]) == ["mine"]
    finally:
        sys.modules.pop(name, None)


def test_a_sibling_package_imports_and_a_script_may_lie_in_a_folder(
    load: Load, write: Write
) -> None:
    write("parts/__init__.py", "")
    write("parts/values.py", "VALUE = 'deep'")
    write("src/near.py", "VALUE = 'near'")
    script = load("""
        import near
        from parts.values import VALUE

        def init():
            pass

        def run(mini_batch):
            return [VALUE, near.VALUE]
    """, "src/score.py")
    assert script.run([]) == ["deep", "near"]


@pytest.mark.parametrize("name", ["json.py", "os.py", "my-score.py", "1.py", "pytest.py"])
def test_the_scripts_own_name_hides_nothing(load: Load, name: str) -> None:
    before = sys.modules.get(name.removesuffix(".py"))
    script = load(PLAIN, name)
    try:
        assert script.run(["a"]) == ["a"]
        if before is not None:
            assert sys.modules[name.removesuffix(".py")] is before
    finally:
        sys.modules.pop("entry_module", None)


def test_classes_of_the_script_can_be_pickled(load: Load) -> None:
    script = load("""
        import dataclasses, pickle

        @dataclasses.dataclass
        class Row:
            x: int

        def init():
            pass

        def run(mini_batch):
            return [pickle.loads(pickle.dumps(Row(1))).x]
    """)
    assert script.run([]) == [1]


def test_a_syntax_error_shows_file_line_and_caret(load: Load) -> None:
    with pytest.raises(UserCodeError) as caught:
        load("""
            def init():
                pass

            def run(mini_batch:
                return []
        """)
    error = caught.value
    assert error.code == "InitFailed"
    assert "its import of score.py failed: SyntaxError" in error.message
    assert error.details is not None
    assert 'File "score.py", line 4' in error.details
    assert "^" in error.details
    assert has_no_frame_of_ours(error.details)


@pytest.mark.parametrize("raised", [
    'ValueError("no model")', "SystemExit(3)", "KeyboardInterrupt()", 'BaseException("x")',
])
@pytest.mark.parametrize("where", ["import", "init"])
def test_what_the_script_raises_becomes_the_users_error(
    load: Load, raised: str, where: str
) -> None:
    text = f"""
        def fail():
            raise {raised}

        def init():
            {"fail()" if where == "init" else "pass"}

        def run(mini_batch):
            return []

        {"fail()" if where == "import" else ""}
    """
    with pytest.raises(UserCodeError) as caught:
        load(text).init()
    error = caught.value
    assert error.code == "InitFailed"
    doing = "init()" if where == "init" else "its import"
    assert error.message.startswith(f"{doing} of score.py failed: {raised.split('(')[0]}")
    assert error.details is not None
    assert 'File "score.py", line 2, in fail' in error.details
    assert has_no_frame_of_ours(error.details)


def test_a_failure_in_a_sibling_names_the_siblings_line(load: Load, write: Write) -> None:
    write("utils.py", "import json\n\njson.loads('{')\n")
    with pytest.raises(UserCodeError) as caught:
        load("import utils\n\ndef init(): pass\n\ndef run(x): return x\n")
    details = caught.value.details
    assert details is not None
    assert 'File "score.py", line 1' in details
    assert 'File "utils.py", line 3' in details
    assert "JSONDecodeError" in caught.value.message
    assert has_no_frame_of_ours(details)


def test_a_missing_package_is_named(load: Load) -> None:
    with pytest.raises(UserCodeError) as caught:
        load("import no_such_package.sub\n" + "def init(): pass\ndef run(x): pass\n")
    error = caught.value
    assert error.code == "PackageMissing"
    assert "score.py needs the package 'no_such_package', which is not installed" in error.message
    assert sys.executable in error.message
    assert "declares" not in error.message


def test_a_missing_package_that_the_environment_declares_is_said_to_be(load: Load) -> None:
    with pytest.raises(UserCodeError, match="although its environment declares it"):
        load("import no_such_package", packages=("no-such-package",))


def test_a_missing_package_in_init_is_named_too(load: Load) -> None:
    script = load("def init():\n    import no_such_package\n\ndef run(x): pass\n")
    with pytest.raises(UserCodeError) as caught:
        script.init()
    assert caught.value.code == "PackageMissing"


@pytest.mark.parametrize("statement", [
    "import utils.missing", "import json.missing", "from pytest import missing",
])
def test_a_missing_part_of_what_is_there_is_no_missing_package(
    load: Load, write: Write, statement: str
) -> None:
    write("utils.py", "")
    with pytest.raises(UserCodeError) as caught:
        load(f"{statement}\ndef init(): pass\ndef run(x): pass\n")
    assert caught.value.code == "InitFailed"
    assert "missing" in caught.value.message


@pytest.mark.parametrize(("text", "message"), [
    ("def run(x): pass", "score.py defines no init()"),
    ("init = 3\ndef run(x): pass", "score.py defines no init()"),
    ("def init(): pass", "score.py defines no run(mini_batch)"),
    ("def init(): pass\nrun = None", "score.py defines no run(mini_batch)"),
    ("def init(): pass\ndef run(): pass", "it defines run()"),
    ("def init(): pass\ndef run(a, b): pass", "it defines run(a, b)"),
    ("def init(): pass\ndef run(*, a): pass", "it defines run(*, a)"),
    ("def init(path): pass\ndef run(x): pass", "it defines init(path)"),
    ("def init(): pass\nrun = lambda: 1", "it defines run()"),
    ("import functools\ndef init(): pass\ndef f(a, b, c): pass\nrun = functools.partial(f, 1)",
     "it defines run(b, c)"),
    ("async def init(): pass\ndef run(x): pass", "not coroutines"),
    ("def init(): pass\nasync def run(x): pass", "not coroutines"),
    ("", "score.py defines no init()"),
])
def test_a_script_without_the_two_functions_is_refused(
    load: Load, text: str, message: str
) -> None:
    with pytest.raises(UserCodeError) as caught:
        load(text)
    assert caught.value.code in ("NoInit", "NoRun")
    assert message in caught.value.message


@pytest.mark.parametrize("text", [
    "def init(): pass\ndef run(x, y=1, *args, **kwargs): return [x]",
    "def init(a=1): pass\ndef run(*args): return [*args]",
    "import functools\ndef init(): pass\nrun = functools.partial(lambda a, b: [b], 1)",
    "class Scorer:\n    def __call__(self, x): return [x]\ndef init(): pass\nrun = Scorer()",
    "def init(): pass\nclass S:\n    def run(self, x): return [x]\nrun = S().run",
])
def test_anything_that_takes_one_argument_is_a_run(load: Load, text: str) -> None:
    assert load(text).run("a") == ["a"]


@pytest.mark.parametrize("name", ["missing.py", "folder", "../outside.py"])
def test_a_script_that_is_not_there_is_named(load: Load, code: Path, name: str) -> None:
    (code / "folder").mkdir()
    with pytest.raises(UserCodeError, match=name) as caught:
        load(None, name)
    assert caught.value.code == "NoScript"
