"""Loading an entity: a YAML file, then `--set` overrides, then flags, then a look at its paths.

The later wins. Without a file the entity comes from overrides and flags alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from inferay.engine.resources.assets import Environment, Model
from inferay.engine.resources.base import Entity
from inferay.engine.resources.deployments import CommonDeployment
from inferay.engine.resources.draft import Draft
from inferay.engine.resources.local_paths import localise
from inferay.engine.resources.overrides import Override, flag_override, parse_override
from inferay.engine.resources.references import is_local_path
from inferay.engine.resources.wording import FieldPath
from inferay.engine.resources.yaml_source import read_yaml
from inferay.errors import InvalidInput

E = TypeVar("E", bound=Entity)

#: Fields of a deployment that may name a YAML file of their own.
_FILE_FIELDS: Mapping[str, type[Entity]] = {"model": Model, "environment": Environment}


@dataclass(frozen=True)
class Loaded(Generic[E]):
    """An entity and what the user should know about how it was read.

    Attributes:
        entity: The entity; local paths in it are absolute.
        warnings: One line for each field that is accepted and has no effect.
    """

    entity: E
    warnings: list[str] = field(default_factory=list)


def load(
    cls: type[E],
    path: str | Path | None,
    /,
    overrides: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
    *,
    base: E | None = None,
    skip_script_validation: bool = False,
    **values: object,
) -> Loaded[E]:
    """Return the entity that a file, `--set` overrides and flags declare together.

    Relative paths start at the file's folder; those of overrides and flags at the current one.

    Args:
        cls: The kind of entity.
        path: The YAML file; None for overrides and flags alone.
        overrides: What stood after each `--set`: `settings.mini_batch_size=5`.
        flags: Values by dotted field; None is a flag that was not given.
        base: What overrides and flags change, where there is no file: an entity to update.
        skip_script_validation: Do not parse the scoring script.
        **values: As `flags`, for top-level fields.

    Raises:
        InvalidInput: Something is wrong; one line with the file and line, the `--set` or the
            flag that is to be changed. Never pydantic's error.
    """
    given = [parse_override(assignment) for assignment in overrides]
    for name, value in {**(flags or {}), **values}.items():
        if value is not None:
            given.append(flag_override(name, value))
    draft = Draft(cls, None if path is None else read_yaml(Path(path)))
    if path is None and base is not None:
        draft.data = base.model_dump(exclude_none=True)
    file = None if path is None else Path(path)
    loaded = _finish(draft, cls, file, given, skip_script_validation)
    if loaded.entity.__dict__.get("name") is None:
        where = f"{path}: " if path is not None else ""
        raise InvalidInput(f"{where}name: missing; it is required", target="name")
    return loaded


def _finish(
    draft: Draft, cls: type[E], path: Path | None, given: Sequence[Override],
    skip_script_validation: bool,
) -> Loaded[E]:
    for override in given:
        draft.set(override)
    origin = _DraftOrigin(draft, Path.cwd() if path is None else path.parent)
    warnings = draft.warnings()
    if issubclass(cls, CommonDeployment):
        warnings += _include_files(draft, origin)
    entity = cast(E, draft.validate())
    localise(entity, origin, skip_script_validation=skip_script_validation)
    return Loaded(entity.with_warnings(warnings), warnings)


def _include_files(draft: Draft, origin: _DraftOrigin) -> list[str]:
    """Put what `environment: file:env.yml` names in its place; return its warnings."""
    warnings: list[str] = []
    for name, cls in _FILE_FIELDS.items():
        value = draft.data.get(name)
        if not isinstance(value, str) or not _names_a_yaml_file(value):
            continue
        path = origin.folder((name,)) / value.removeprefix("file:")
        try:
            draft_of_file = Draft(cls, read_yaml(path))
            loaded: Loaded[Any] = _finish(draft_of_file, cls, path, (), skip_script_validation=True)
        except InvalidInput as error:
            raise draft.error((name,), error.message) from None
        draft.data[name] = loaded.entity
        warnings += loaded.warnings
    return warnings


def _names_a_yaml_file(text: str) -> bool:
    return is_local_path(text) and text.lower().endswith((".yml", ".yaml"))


class _DraftOrigin:
    """Says of each field of a draft which folder its paths start from."""

    def __init__(self, draft: Draft, folder: Path) -> None:
        self._draft = draft
        self._folder = folder

    def folder(self, path: FieldPath) -> Path:
        return Path.cwd() if self._draft.is_given(path) else self._folder.absolute()

    def error(self, path: FieldPath, reason: str) -> InvalidInput:
        return self._draft.error(path, reason)
