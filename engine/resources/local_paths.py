"""Local paths in entities: made absolute, and looked at, before anything is uploaded.

What is missing, empty, unreadable, a dangling link or a FIFO is refused here, with the field that
names it. Nothing is opened but conda files and scoring scripts, and those only if they are
regular files. How large a model or a code folder may be is the upload's concern.
"""

from __future__ import annotations

import ast
import os
import stat
import warnings
from collections.abc import Iterator
from importlib.util import decode_source
from pathlib import Path
from typing import Protocol, TypeVar

from inferay.engine.resources.assets import Code, Data, Environment, Model
from inferay.engine.resources.base import Entity
from inferay.engine.resources.deployments import CodeConfiguration, CommonDeployment
from inferay.engine.resources.infrastructure import Datastore
from inferay.engine.resources.local_files import (
    UnreadableFileError,
    absence,
    file_kind,
    read_regular_file,
)
from inferay.engine.resources.references import is_local_path
from inferay.engine.resources.wording import FieldPath, dotted, one_line
from inferay.engine.resources.yaml_source import FILE_BYTES_MAX, parse_yaml
from inferay.errors import InvalidInput

E = TypeVar("E", bound=Entity)

#: Bytes of a scoring script; larger "scripts" hold data.
SCRIPT_BYTES_MAX = 10 * 1024 * 1024
#: Files of a model folder that are looked at; the rest the upload sees.
FILES_LOOKED_AT_MAX = 10_000
#: What a data asset's type says that its path is.
_KINDS = {"uri_file": "file", "uri_folder": "folder", "mltable": "folder"}
_PIP_FILE_FLAGS = ("-r ", "--requirement ", "--requirement=")


class Origin(Protocol):
    """Where the fields of an entity came from."""

    def folder(self, path: FieldPath) -> Path:
        """Return the folder that a relative path in this field starts from."""

    def error(self, path: FieldPath, reason: str) -> InvalidInput:
        """Return the error for this field."""


class _OneFolder:
    """The origin of an entity that was made in Python."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder(self, path: FieldPath) -> Path:
        return self._folder

    def error(self, path: FieldPath, reason: str) -> InvalidInput:
        return InvalidInput(f"{dotted(path)}: {reason}", target=dotted(path))


def resolve_local_paths(
    entity: E, folder: Path | None = None, *, skip_script_validation: bool = False
) -> E:
    """Return a copy with absolute local paths and conda files read; `load` has done so already.

    Relative paths start at `folder`, or at the current one. Doing it twice changes nothing.

    Raises:
        InvalidInput: A local path is not there, or is not what it must be.
    """
    copy = entity.model_copy(deep=True)
    origin = _OneFolder(folder or Path.cwd())
    localise(copy, origin, skip_script_validation=skip_script_validation)
    return copy


def localise(
    entity: Entity, origin: Origin, *, skip_script_validation: bool = False, at: FieldPath = ()
) -> None:
    """Do `resolve_local_paths` in place; `at` is where the entity stands in another."""
    if isinstance(entity, CommonDeployment):
        if isinstance(entity.model, Model):
            localise(entity.model, origin, at=(*at, "model"))
        if isinstance(entity.environment, Environment):
            localise(entity.environment, origin, at=(*at, "environment"))
        if entity.code_configuration is not None:
            _localise_code(entity.code_configuration, origin, skip_script_validation)
    elif isinstance(entity, Model | Data | Code):
        if is_local_path(entity.path):
            kind = _KINDS.get(getattr(entity, "type", ""), "")
            path = _checked(entity.path, origin, (*at, "path"), kind)
            if isinstance(entity, Data) and entity.type == "mltable":
                _check_mltable(path, origin, (*at, "path"))
            entity.path = str(path)
    elif isinstance(entity, Environment):
        _localise_environment(entity, origin, at)
    elif isinstance(entity, Datastore) and entity.path is not None:
        entity.path = str(_absolute(entity.path, origin, ("path",)))  # on the server's machine


def _localise_environment(entity: Environment, origin: Origin, at: FieldPath) -> None:
    if isinstance(entity.conda_file, str):
        entity.conda_file = _read_conda_file(entity.conda_file, origin, (*at, "conda_file"))
    if entity.build is not None and is_local_path(entity.build.path):
        field = (*at, "build", "path")
        folder = _checked(entity.build.path, origin, field, "folder")
        dockerfile = folder / entity.build.dockerfile_path
        if not dockerfile.is_file():
            raise origin.error((*at, "build", "dockerfile_path"), f"no such file: {dockerfile}")
        entity.build.path = str(folder)


def _localise_code(code: CodeConfiguration, origin: Origin, skip_script_validation: bool) -> None:
    at = ("code_configuration",)
    if not is_local_path(code.code):
        return
    folder = _checked(code.code, origin, (*at, "code"), "folder")
    code.code = str(folder)
    script, field = folder / code.scoring_script, (*at, "scoring_script")
    if not script.resolve().is_relative_to(folder.resolve()):
        raise origin.error(field, f"{script} leads out of the code folder {folder}")
    try:
        source = read_regular_file(script, SCRIPT_BYTES_MAX)
    except UnreadableFileError as error:
        raise origin.error(field, f"{error}: {script}") from None
    if not skip_script_validation:
        _check_script(source, script, origin, field)


def _check_script(source: bytes, script: Path, origin: Origin, field: FieldPath) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in user code is no concern of ours
            ast.parse(decode_source(source), str(script))
    except SyntaxError as error:
        place = one_line(f"{script}:{error.lineno or 1}")
        raise origin.error(field, f"{place}: SyntaxError: {one_line(error.msg)}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise origin.error(field, f"{script}: expected Python source ({error})") from None


def _read_conda_file(text: str, origin: Origin, field: FieldPath) -> dict[str, object]:
    path = _absolute(text, origin, field)
    try:
        conda = parse_yaml(read_regular_file(path, FILE_BYTES_MAX), str(path)).data
        _inline_pip_files(conda, path.parent)
    except UnreadableFileError as error:
        raise origin.error(field, f"{error}: {path}") from None
    except InvalidInput as error:
        raise origin.error(field, error.message) from None
    return conda


def _inline_pip_files(conda: dict[str, object], folder: Path) -> None:
    """Replace `-r requirements.txt` in the pip part by the file's lines: it is not uploaded."""
    dependencies = conda.get("dependencies")
    for item in dependencies if isinstance(dependencies, list) else []:
        if isinstance(item, dict) and isinstance(item.get("pip"), list):
            item["pip"] = [line for entry in item["pip"] for line in _pip_lines(entry, folder)]


def _pip_lines(entry: object, folder: Path) -> list[object]:
    flag = next((flag for flag in _PIP_FILE_FLAGS if str(entry).startswith(flag)), None)
    if flag is None:
        return [entry]
    path = folder / str(entry).removeprefix(flag).strip()
    try:
        text = read_regular_file(path, FILE_BYTES_MAX).decode(errors="replace")
    except UnreadableFileError as error:
        raise UnreadableFileError(f"pip requirements {path}: {error}, in") from None
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _absolute(text: str, origin: Origin, field: FieldPath) -> Path:
    plain = text.removeprefix("file://") if text.startswith("file://") else text
    plain = plain.removeprefix("file:")
    if not plain or "\0" in plain:
        raise origin.error(field, "expected a path")
    return Path(os.path.abspath(origin.folder(field) / plain))


def _checked(text: str, origin: Origin, field: FieldPath, kind: str) -> Path:
    """Return the absolute path of something that is there, readable and not empty."""
    path = _absolute(text, origin, field)
    reason = _fault(path, kind)
    if reason is not None:
        raise origin.error(field, one_line(reason))
    return path


def _check_mltable(folder: Path, origin: Origin, field: FieldPath) -> None:
    if not (folder / "MLTable").is_file():
        raise origin.error(field, f"expected a file 'MLTable' in the folder: {folder}")


def _fault(path: Path, kind: str) -> str | None:
    """Return what is wrong with a path that shall be a file or folder (`kind`; "" for either)."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return f"{absence(path)}: {path}"
    except OSError as error:
        return f"unreadable ({error.strerror}): {path}"
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return f"expected {kind or 'a file or folder'}, got {file_kind(mode)}: {path}"
    if kind and kind != ("folder" if stat.S_ISDIR(mode) else "file"):
        return f"expected a {kind}, got a {'folder' if stat.S_ISDIR(mode) else 'file'}: {path}"
    if not os.access(path, os.R_OK):
        return f"unreadable (permission denied): {path}"
    return _fault_inside(path) if stat.S_ISDIR(mode) else None


def _fault_inside(folder: Path) -> str | None:
    """Return what is wrong inside a folder: nothing in it, or something that can't be copied."""
    count = 0
    for path in _walk(folder):
        count += 1
        if count > FILES_LOOKED_AT_MAX:
            return None
        try:
            mode = os.stat(path).st_mode
        except OSError:
            return f"holds {absence(path)}: {path}"
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return f"holds {file_kind(mode)}: {path}"
        if not os.access(path, os.R_OK):
            return f"holds an unreadable file (permission denied): {path}"
    return None if count else f"empty folder: {folder}"


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in order; links to folders count as files."""
    for root, folders, files in os.walk(folder):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        for name in sorted(files + links):
            yield Path(root, name)
