"""A user's scoring script: loaded by path, `init()` once, `run()` per call, `shutdown()` last.

Azure's contract (how-to-batch-scoring-script): the script's folder is on `sys.path`, so sibling
modules import; `AZUREML_MODEL_DIR` is set before. A failure of the user's code becomes a
`UserCodeError` whose details are the user's own frames.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from inferay.engine.scoring.tracebacks import describe_exception, user_traceback
from inferay.errors import UserCodeError

#: Module name of a script whose own name is taken by a module that is loaded already.
FALLBACK_NAME = "entry_module"


class Scoring(Protocol):
    """What a batch worker scores with: a script, or a model that needs none."""

    @property
    def column_types(self) -> Mapping[str, str]:
        """The dtypes of columns that are read from text, where they are declared."""

    @property
    def run(self) -> Callable[[Any], Any]:
        """What is called with each mini-batch."""

    def init(self) -> None:
        """Make ready, once; blocks.

        Raises:
            UserCodeError: The user's code or model failed.
        """

    def shutdown(self) -> None:
        """Called when nothing is scored any more."""


class ScoringScript:
    """A loaded script; `load` then `init`, on the main thread of the process that scores.

    Attributes:
        run: The user's `run`.
        column_types: None is declared.
    """

    def __init__(self, module: ModuleType, code_dir: Path, packages: tuple[str, ...]) -> None:
        self._module = module
        self._code_dir = code_dir
        self._packages = packages
        self.run: Callable[[Any], Any] = module.run
        self.column_types: Mapping[str, str] = {}

    @property
    def module(self) -> ModuleType:
        """The script itself."""
        return self._module

    @classmethod
    def load(
        cls, code_dir: Path, script: str, *, packages: tuple[str, ...] = (),
        check: Callable[[ModuleType, str], None] | None = None,
    ) -> ScoringScript:
        """Import the script as a module.

        Args:
            code_dir: The folder that becomes the first entry of `sys.path`.
            script: The script's path below it.
            packages: Packages that the environment declares, for the error about a missing one.
            check: Refuses a module whose functions are not what its host calls; by default what
                a batch deployment calls.

        Raises:
            UserCodeError: The import failed, or the script lacks `init()` or `run()`.
        """
        path = code_dir / script
        sys.path.insert(0, str(code_dir))
        if path.parent != code_dir:
            sys.path.insert(0, str(path.parent))
        name = path.stem if path.stem not in sys.modules else FALLBACK_NAME
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise UserCodeError(f"the scoring script {script} cannot be loaded", code="NoScript")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:   # a script may raise anything, SystemExit too
            raise _explain(error, script, "its import", code_dir, packages) from error
        (check or check_batch)(module, script)
        return cls(module, code_dir, packages)

    def init(self) -> None:
        """Run the user's `init()`.

        Raises:
            UserCodeError: It raised.
        """
        try:
            self._module.init()
        except BaseException as error:   # a script may raise anything, SystemExit too
            script = os.path.basename(str(self._module.__file__))
            raise _explain(error, script, "init()", self._code_dir, self._packages) from error

    def shutdown(self) -> None:
        """Run the user's optional `shutdown()`; what it raises is the caller's to report."""
        shutdown = getattr(self._module, "shutdown", None)
        if callable(shutdown):
            shutdown()


def check_batch(module: ModuleType, script: str) -> None:
    """Refuse a module without `init()` and `run(mini_batch)` as a batch deployment calls them.

    Raises:
        UserCodeError: What it lacks.
    """
    init, run = getattr(module, "init", None), getattr(module, "run", None)
    if not callable(init):
        raise UserCodeError(f"{script} defines no init()", code="NoInit")
    if not callable(run):
        raise UserCodeError(f"{script} defines no run(mini_batch)", code="NoRun")
    if inspect.iscoroutinefunction(init) or inspect.iscoroutinefunction(run):
        raise UserCodeError(
            f"init() and run() of {script} have to be plain functions in a batch deployment, "
            "not coroutines",
            code="NoRun",
        )
    for name, function, arguments in (("init", init, ()), ("run", run, (None,))):
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError:
            raise UserCodeError(
                f"{script} has to define init() and run(mini_batch), but it defines "
                f"{name}{inspect.signature(function)}",
                code="NoRun",
            ) from None
        except ValueError:   # a builtin without a signature: calling it will tell
            continue


def _explain(
    error: BaseException, script: str, doing: str, code_dir: Path, packages: tuple[str, ...]
) -> UserCodeError:
    traceback = user_traceback(error, code_dir)
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    package = missing.split(".")[0] if missing else ""
    if package and not _is_there(package):
        declared = package.replace("_", "-").lower() in packages
        return UserCodeError(
            f"{script} needs the package '{package}', which is not installed where it runs"
            + (" although its environment declares it" if declared else "")
            + f"; install it for {sys.executable}",
            code="PackageMissing", details=traceback,
        )
    return UserCodeError(
        f"{doing} of {script} failed: {describe_exception(error)}",
        code="InitFailed", details=traceback,
    )


def _is_there(package: str) -> bool:
    """Whether the package itself is found, so that only a part of it is missing."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):   # a stand-in of ours has no spec
        return False
