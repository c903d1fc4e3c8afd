"""Pydantic's errors as one sentence each, in the words of the person who wrote the input.

It knows field paths, not files: `loading` adds lines, `rest` adds JSON pointers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from inferay.engine.resources.wording import FieldPath, dotted, is_secret, shown
from inferay.errors import InvalidInput, nearest

_MAPPING_ERRORS = frozenset({"model_type", "model_attributes_type", "dict_type", "mapping_type"})


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the input.

    Attributes:
        path: The field, by the names that the user writes.
        reason: What was expected and what was given, in one line.
        is_missing: The field is not there at all.
    """

    path: FieldPath
    reason: str
    is_missing: bool = False


def problems(cls: type[BaseModel], error: ValidationError) -> list[Problem]:
    """Return everything that pydantic found, in its order."""
    return [_problem(cls, item) for item in error.errors(include_url=False)]


def first_problem(cls: type[BaseModel], error: ValidationError) -> InvalidInput:
    """Return the first problem as an error, with the number of the others."""
    found = sorted(problems(cls, error), key=lambda problem: problem.is_missing)
    field = dotted(found[0].path)
    place = f"{field}: " if field else ""
    return InvalidInput(f"{place}{found[0].reason}{and_more(found)}", target=field or None)


def and_more(found: list[Problem]) -> str:
    """Return " (and N more)" for the problems after the first, or ""."""
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def _problem(cls: type[BaseModel], item: Mapping[str, Any]) -> Problem:
    # The members of a union carry a tag in angle brackets, which no user wrote.
    path = tuple(step for step in item["loc"] if not str(step).startswith("<"))
    kind, value = item["type"], item.get("input")
    given = "a value that is not shown" if is_secret(path) else shown(value)
    if kind == "inferay":
        return Problem((*path, *item["ctx"]["at"]), item["ctx"]["reason"])
    if kind == "missing":
        return Problem(path, "missing; it is required", is_missing=True)
    if kind in ("extra_forbidden", "no_such_attribute"):
        return Problem(path, f"unknown field{_hint(cls, path)}")
    if kind in _MAPPING_ERRORS:
        return Problem(path, f"expected fields, got {given}")
    if kind == "list_type":
        return Problem(path, f"expected a list, got {given}")
    if kind == "string_type":
        return Problem(path, f"expected text, got {given}")
    if kind == "bool_type":
        return Problem(path, f"expected true or false, got {given}")
    reason = str(item["msg"])
    return Problem(path, f"{reason[:1].lower()}{reason[1:]}, got {given}")


def _hint(cls: type[BaseModel], path: FieldPath) -> str:
    """Return the nearest valid name beside an unknown one."""
    owner = _owner(cls, path[:-1])
    if owner is None or not path:
        return ""
    name, valid = str(path[-1]), valid_names(owner)
    if len(name) > 100:
        return ""
    return nearest(name, valid) or nearest(name.lower(), valid)


def valid_names(cls: type[BaseModel]) -> list[str]:
    """Return the names that a user may write at the top of this class, older places included."""
    names = [field.alias or name for name, field in cls.model_fields.items()]
    moved: Mapping[FieldPath, FieldPath] = getattr(cls, "MOVED", {})
    return names + [str(path[0]) for path in moved if len(path) == 1]


def _owner(cls: type[BaseModel], path: FieldPath) -> type[BaseModel] | None:
    """Return the class whose fields stand at the path."""
    owner, steps = cls, list(path)
    while steps:
        field = field_named(owner, str(steps.pop(0)))
        inner = nested_class(field.annotation) if field else None
        if field is None or inner is None:
            return None
        if _is_collection(field.annotation) and steps:
            steps.pop(0)  # the key or index of the item
        owner = inner
    return owner


def field_named(cls: type[BaseModel], name: str) -> FieldInfo | None:
    """Return the field that a user writes by this name."""
    for own_name, field in cls.model_fields.items():
        if name == (field.alias or own_name):
            return field
    return None


def nested_class(annotation: Any) -> type[BaseModel] | None:
    """Return the class of fields that an annotation such as `Model | str | None` allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        inner = nested_class(argument)
        if inner is not None:
            return inner
    return None


def _is_collection(annotation: Any) -> bool:
    if get_origin(annotation) in (dict, list):
        return True
    return any(_is_collection(argument) for argument in get_args(annotation))
