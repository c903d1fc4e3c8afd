"""The fields of one entity before validation, and where each of them came from.

A file is read into a draft, overrides are laid over it, and it is then validated. What goes wrong
is reported by the place that the user can edit: a line of the file, a `--set`, or a flag.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from inferay.engine.resources.base import Entity, Strict, move
from inferay.engine.resources.overrides import Override, assign
from inferay.engine.resources.problems import (
    Problem,
    and_more,
    field_named,
    nested_class,
    problems,
)
from inferay.engine.resources.wording import FieldPath, dotted, one_line
from inferay.engine.resources.yaml_source import YamlDocument
from inferay.errors import InvalidInput

P = TypeVar("P")

#: Maps whose values are text whatever a user writes: `PORT: 010` is "010".
_TEXT_MAPS = frozenset({"environment_variables", "tags", "properties"})


class Draft:
    """Data for one entity, with the place of every field.

    Attributes:
        data: The fields, each where it is kept (older places already moved).
    """

    def __init__(self, cls: type[Entity], document: YamlDocument | None) -> None:
        self._cls = cls
        self._file = "" if document is None else document.name
        self._written: list[tuple[FieldPath, FieldPath]] = []  # (kept, written)
        self._lines: dict[FieldPath, int] = {}
        self._given: dict[FieldPath, str] = {}
        self.data: dict[str, Any] = {}
        if document is not None:
            self._take(document)

    def _take(self, document: YamlDocument) -> None:
        self.data = document.data
        self._lines = {path: document.positions[path][0] for path in document.positions}
        for path, text in document.texts.items():
            if _is_text(path):
                _set_existing(self.data, path, text)
        try:
            self._cls.refuse_kind(self.data)
            for written, kept in self._cls.MOVED.items():
                if move(self.data, written, kept):
                    self._rename(written, kept)
        except PydanticCustomError as error:
            context = error.context or {}
            raise self.error(context["at"], context["reason"]) from None

    def _rename(self, written: FieldPath, kept: FieldPath) -> None:
        self._written.append((kept, written))
        for path in [path for path in self._lines if path[: len(written)] == written]:
            self._lines[(*kept, *path[len(written) :])] = self._lines.pop(path)

    def set(self, override: Override) -> None:
        """Lay a value from the command line over the data.

        Raises:
            InvalidInput: It leads into something that has no fields.
        """
        path = override.path
        for written, kept in self._cls.MOVED.items():
            if path[: len(written)] == written:
                path = (*kept, *path[len(written) :])
        is_typed_text = override.text is not None and _is_text(path)
        value = override.text if is_typed_text else override.value
        assign(self.data, Override(path, value, override.text, override.place))
        self._lines = _without(self._lines, path)
        self._given = {**_without(self._given, path), path: override.place}

    def is_given(self, path: FieldPath) -> bool:
        """Return whether the value at the path came from the command line, not from the file."""
        return self._place(path)[0] == 1

    def error(self, path: FieldPath, reason: str) -> InvalidInput:
        """Return the error for a field: its place, its name as written, and the reason."""
        place, field = self._place(path)[2], dotted(self._as_written(path))
        words = [word for word in (place, field, reason) if word]
        return InvalidInput(": ".join(words), target=field or None)

    def validate(self) -> Entity:
        """Return the entity.

        Raises:
            InvalidInput: The data is not what the schema allows: the first problem by line, a
                missing field only where nothing else is wrong.
        """
        try:
            return self._cls.model_validate(self.data)
        except ValidationError as error:
            found = sorted(problems(self._cls, error), key=self._order)
            raise self.error(found[0].path, found[0].reason + and_more(found)) from None

    def warnings(self) -> list[str]:
        """Return a line for each field that is accepted and has no effect, by line of the file."""
        found = sorted(_ignored(self._cls, self.data, ()), key=lambda item: self._place(item[0]))
        return [str(self.error(path, reason)) for path, reason in found]

    def _order(self, problem: Problem) -> tuple[bool, int, int]:
        kind, line, _ = self._place(problem.path)
        return problem.is_missing, kind, line

    def _place(self, path: FieldPath) -> tuple[int, int, str]:
        """Return (0, line, "file:line") or (1, 0, flag) of the nearest known field around."""
        for length in range(len(path), 0, -1):
            prefix = path[:length]
            if prefix in self._given:
                return 1, 0, self._given[prefix]
            if prefix in self._lines:
                return 0, self._lines[prefix], one_line(f"{self._file}:{self._lines[prefix]}")
        return 0, 0, one_line(self._file)

    def _as_written(self, path: FieldPath) -> FieldPath:
        if self.is_given(path):
            return path
        for kept, written in self._written:
            if path[: len(kept)] == kept:
                return (*written, *path[len(kept) :])
        return path


def _is_text(path: FieldPath) -> bool:
    if len(path) > 1 and path[-2] in _TEXT_MAPS:
        return path[-3:-2] != ("resources",)  # resources.properties keeps its types
    return path[-1] == "version" and len(path) <= 2


def _without(places: dict[FieldPath, P], path: FieldPath) -> dict[FieldPath, P]:
    """Return the places but those at and below the path."""
    return {known: place for known, place in places.items() if known[: len(path)] != path}


def _set_existing(data: Any, path: FieldPath, value: object) -> None:
    for step in path[:-1]:
        data = data[step]
    data[path[-1]] = value


def _ignored(
    cls: type[BaseModel], data: Mapping[str, Any], path: FieldPath
) -> Iterator[tuple[FieldPath, str]]:
    """Yield every field of the data that is accepted and has no effect, with the words for it."""
    for key, value in data.items():
        if key == "$schema" or not issubclass(cls, Strict):
            continue
        if key in cls.READ_ONLY:
            yield (*path, key), "read-only; ignored"
        elif key in cls.NO_EFFECT or (key in cls.INERT and value):
            yield (*path, key), "has no effect here; ignored"
        elif isinstance(value, Mapping) and (field := field_named(cls, key)) is not None:
            inner = nested_class(field.annotation)
            if inner is not None:
                yield from _ignored(inner, value, (*path, key))
