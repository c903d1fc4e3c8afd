"""What every entity and every REST body has in common: strict fields and errors in our words.

`Strict` refuses what it doesn't know, drops what Azure knows and this product has no use for, and
raises `InvalidInput` from construction and assignment. `Entity` adds what a server says about a
resource and the plain form that the CLI prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, model_validator

from inferay.engine.resources.facts import CreationContext, ServerFacts
from inferay.engine.resources.fields import refusal
from inferay.engine.resources.problems import first_problem
from inferay.engine.resources.wording import FieldPath, dotted


class Strict(BaseModel):
    """Fields with fixed names; construction and assignment raise InvalidInput.

    Attributes:
        NO_EFFECT: Azure's infrastructure fields that mean nothing here: accepted, dropped.
        READ_ONLY: Fields that only a server sets: accepted, dropped.
        INERT: Fields that are kept and given back, but have no effect.
        MOVED: Other places at which a field may be written, and where it is kept.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, defer_build=True)

    NO_EFFECT: ClassVar[frozenset[str]] = frozenset()
    READ_ONLY: ClassVar[frozenset[str]] = frozenset()
    INERT: ClassVar[frozenset[str]] = frozenset()
    MOVED: ClassVar[Mapping[FieldPath, FieldPath]] = {}

    if not TYPE_CHECKING:  # type checkers shall see the signature that pydantic makes

        def __init__(self, /, **data: Any) -> None:
            try:
                self.__pydantic_validator__.validate_python(data, self_instance=self)
            except ValidationError as error:
                raise first_problem(type(self), error) from None

        # Keeps pydantic from calling this __init__ for nested fields: the outermost call must
        # see the whole ValidationError to name the whole path (SQLModel does the same).
        __init__.__pydantic_base_init__ = True

        def __setattr__(self, name: str, value: Any) -> None:
            before = dict(self.__dict__)
            try:
                super().__setattr__(name, value)
            except ValidationError as error:
                # A check across fields runs after the assignment: take that back.
                object.__setattr__(self, "__dict__", before)
                raise first_problem(type(self), error) from None

    @model_validator(mode="before")
    @classmethod
    def _accept(cls, data: Any) -> Any:
        if data is None and not any(field.is_required() for field in cls.model_fields.values()):
            data = {}   # YAML's `settings:` with nothing below it
        return cls.canonical(data) if isinstance(data, Mapping) else data

    @classmethod
    def canonical(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data with ignored fields dropped and moved ones where they are kept.

        Raises:
            PydanticCustomError: The data is of a kind that is refused, or has a field twice.
        """
        cls.refuse_kind(data)
        result = {key: value for key, value in data.items() if not cls.is_ignored(key)}
        for written, kept in cls.MOVED.items():
            move(result, written, kept)
        return result

    @classmethod
    def refuse_kind(cls, data: Mapping[str, Any]) -> None:
        """Raise PydanticCustomError where the data is of a kind that Azure has and we do not."""

    @classmethod
    def is_ignored(cls, name: str) -> bool:
        """Return whether a field of this name is accepted and dropped."""
        return name in cls.NO_EFFECT or name in cls.READ_ONLY or name == "$schema"


class Entity(Strict):
    """A resource as a user declares it. Two are equal when their declared fields are."""

    _facts: ServerFacts = PrivateAttr(default_factory=ServerFacts)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    @property
    def id(self) -> str | None:
        """The resource id; None for an entity that did not come from a server."""
        return self._facts.id

    @property
    def provisioning_state(self) -> str | None:
        """The state of the last create or update, as the server said."""
        return self._facts.provisioning_state

    @property
    def creation_context(self) -> CreationContext | None:
        """Who made and last changed it, and when, as the server said."""
        return self._facts.creation_context

    @property
    def warnings(self) -> tuple[str, ...]:
        """The lines of warning from loading it: fields that were accepted and have no effect."""
        return self._warnings

    def with_facts(self, facts: ServerFacts) -> Self:
        """Return a copy that carries what a server said."""
        copy = self.model_copy(deep=True)
        copy._facts = facts
        return copy

    def with_warnings(self, warnings: Sequence[str]) -> Self:
        """Return a copy that carries these lines of warning."""
        copy = self.model_copy(deep=True)
        copy._warnings = tuple(warnings)
        return copy

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able data in Azure CLI's names: no None, secrets masked."""
        return self.model_dump(mode="json", exclude_none=True) | self._facts.to_dict()

    @classmethod
    def load(
        cls,
        path: str | Path | None,
        /,
        overrides: Sequence[str] = (),
        flags: Mapping[str, object] | None = None,
        *,
        base: Self | None = None,
        skip_script_validation: bool = False,
        **values: object,
    ) -> Self:
        """Return the entity that a YAML file declares; see `inferay.engine.resources.load`.

        Its `warnings` hold what `Loaded.warnings` would.

        Raises:
            InvalidInput: The file, an override or a flag is wrong.
        """
        from inferay.engine.resources.loading import load  # it needs every entity, so late

        loaded = load(
            cls, path, overrides, flags, base=base,
            skip_script_validation=skip_script_validation, **values,
        )
        return loaded.entity


def move(data: dict[str, Any], written: FieldPath, kept: FieldPath) -> bool:
    """Move a field of the data, in place, to where it is kept; return whether it was there.

    A value of a different kind on the way (text where fields are expected) is left as it is: the
    schema reports it.

    Raises:
        PydanticCustomError: Both places hold a value, and they differ.
    """
    source = _inside(data, written[:-1], create=False)
    if source is None or written[-1] not in source:
        return False
    target = _inside(data, kept[:-1], create=True)
    if target is None:
        return False
    value = source.pop(written[-1])
    if kept[-1] in target and target[kept[-1]] != value:
        raise refusal(f"given twice, here and at {dotted(kept)}; expected it once", at=written)
    target[str(kept[-1])] = value
    return True


def _inside(data: dict[str, Any], path: FieldPath, *, create: bool) -> dict[str, Any] | None:
    """Return a private copy of the mapping at the path, put in place of the one there."""
    for step in path:
        inner = data.get(str(step))
        if inner is None and create:
            inner = {}
        if isinstance(inner, Strict):
            inner = inner.model_dump(exclude_unset=True)
        if not isinstance(inner, Mapping):
            return None
        data[str(step)] = dict(inner)
        data = data[str(step)]
    return data
