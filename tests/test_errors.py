from __future__ import annotations

import ast
import importlib
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import inferay
from inferay.errors import (
    EXIT_CODES,
    Conflict,
    InferayError,
    InvalidInput,
    JobError,
    NotAuthorized,
    NotFound,
    Unavailable,
    UserCodeError,
    exit_code,
    nearest,
)

#: Modules that define errors beside `inferay.errors`; importing all of inferay would take Ray.
for _name in (
    "inferay.engine.batch.driver", "inferay.engine.batch.journal",
    "inferay.engine.storage.read_errors", "inferay.engine.storage.retries",
    "inferay.serve.edge.runtime",
):
    importlib.import_module(_name)


def tree(root: type[InferayError]) -> Iterator[type[InferayError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


CLASSES = sorted({cls for cls in tree(InferayError) if cls.__module__.startswith("inferay.")},
                 key=lambda cls: cls.__qualname__)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_an_error_survives_pickling(cls: type[InferayError], protocol: int) -> None:
    error = cls.__new__(cls)
    InferayError.__init__(
        error, "what happened é\udcff", code="Special", target="a/b", details="line\nline"
    )
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is cls
    assert str(back) == back.message == "what happened é\udcff"
    assert (back.code, back.target, back.details) == ("Special", "a/b", "line\nline")
    assert back.as_dict() == error.as_dict()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_has_a_code_of_its_own_and_an_exit_code(cls: type[InferayError]) -> None:
    assert cls.code.isidentifier()
    error = cls.__new__(cls)
    InferayError.__init__(error, "x")
    assert error.code == cls.code
    assert exit_code(error) in {1, 2, 3, 4, 5, 6}
    assert isinstance(cls.__doc__, str)


@pytest.mark.parametrize(("cls", "code"), [
    (InferayError, 1), (UserCodeError, 1), (JobError, 1), (InvalidInput, 2), (NotFound, 3),
    (Conflict, 4), (NotAuthorized, 5), (Unavailable, 6),
])
def test_the_exit_codes_are_the_promised_ones(cls: type[InferayError], code: int) -> None:
    assert EXIT_CODES[cls] == code
    assert exit_code(cls("x")) == code


def test_the_most_specific_class_gives_the_exit_code() -> None:
    class Special(NotFound):
        pass

    assert exit_code(Special("x")) == 3


def test_codes_are_unambiguous() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)


def test_an_error_is_azures_object() -> None:
    assert InvalidInput("bad", target="$.x").as_dict() == {
        "code": "InvalidInput", "message": "bad", "target": "$.x", "details": [],
    }
    assert UserCodeError("bad", details="tb").as_dict()["details"] == [
        {"code": "Detail", "message": "tb"}
    ]


def test_the_nearest_name_is_suggested() -> None:
    assert nearest("instance_cout", ["instance_count", "name"]) == (
        "; did you mean 'instance_count'?"
    )
    assert nearest("xyz", ["instance_count"]) == ""
    assert nearest("x", []) == ""


def test_modules_that_define_errors_are_known_here() -> None:
    """An error class in a module that this test does not import would go untested."""
    known = {cls.__name__ for cls in CLASSES}
    source = Path(inferay.__file__).parent
    for path in (p for part in ("engine", "jobs", "serve") for p in (source / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                assert node.name in known or not bases & known, f"{path} defines {node.name}"
