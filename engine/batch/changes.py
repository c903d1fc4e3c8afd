"""What a job was begun with, and what has changed since: it goes on only with the same.

The first epoch's record keeps the settings, and hash and files of code and model; the manifest
keeps the input. `check_unchanged` compares both with what is there now, and names what differs.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inferay.engine.batch.spec import JobSpec, file_names, hash_of, hash_path
from inferay.engine.batch.units import Unit, units_from_json, units_to_json
from inferay.engine.storage import redacted
from inferay.errors import Conflict

#: Files of code or model that are recorded by name; of a folder with more, only the hash is.
FILES_MAX = 10_000

#: Differences that an error names; the others are counted.
NAMED_MAX = 5


def facts_of(spec: JobSpec) -> dict[str, Any]:
    """Return what a job is begun with, as the first epoch's record keeps it.

    Reads code and model once more only if the spec does not have their hashes. Values of
    environment variables are kept as hashes: they may be secrets.
    """
    return {
        **_settings_facts(spec),
        "code": _tree_facts(spec, spec.code, spec.hashes.get("code")),
        "model": _tree_facts(spec, spec.model, spec.hashes.get("model")),
    }


def check_unchanged(
    spec: JobSpec, began: dict[str, Any], sealed: Iterable[Unit], listed: Iterable[Unit]
) -> None:
    """Check that a job that goes on is what it was when it began; reads code and model whole.

    Args:
        spec: The job as it is now.
        began: `facts_of` it when it began.
        sealed: The units of its manifest.
        listed: The files of its input as they are now, in the same order. Both are streamed.

    Raises:
        Conflict: It is not; the message names the first differences. The code is `SpecChanged`,
            `CodeChanged`, `ModelChanged` or `InputChanged`.
    """
    _refuse_if_any(spec, "Spec", "settings", _changed_settings(began, _settings_facts(spec)))
    for what, path in (("code", spec.code), ("model", spec.model)):
        changed = _changed_tree(spec, began[what], path)
        _refuse_if_any(spec, what.title(), f"{what} {path}", changed)
    _refuse_if_any(spec, "Input", f"input {redacted(spec.input)}", changed_units(sealed, listed))


def changed_units(before: Iterable[Unit], now: Iterable[Unit]) -> Iterator[str]:
    """Yield in words how two listings in bytewise order differ; parts count as their file."""
    befores, nows = _whole_files(before), _whole_files(now)
    was, is_ = next(befores, None), next(nows, None)
    while was is not None and is_ is not None:
        if was.path == is_.path:
            if was.size_bytes != is_.size_bytes or was.version != is_.version:
                yield f"{was.path} had {_state(was)} and has {_state(is_)}"
            was, is_ = next(befores, None), next(nows, None)
        elif _key(was) < _key(is_):
            yield f"{was.path} is gone"
            was = next(befores, None)
        else:
            yield f"{is_.path} is new"
            is_ = next(nows, None)
    yield from (f"{unit.path} is gone" for unit in _rest(was, befores))
    yield from (f"{unit.path} is new" for unit in _rest(is_, nows))


def _refuse_if_any(spec: JobSpec, kind: str, what: str, differences: Iterator[str]) -> None:
    named = list(itertools.islice(differences, NAMED_MAX))
    if not named:
        return
    more = sum(1 for _ in differences)
    raise Conflict(
        f"job '{spec.name}' cannot go on, for its {what} changed since it began: "
        f"{'; '.join(named)}{f'; and {more} more' if more else ''}. Undo that and resume the job, "
        "or begin a new one under another name",
        code=f"{kind}Changed", target=spec.name,
    )


def _settings_facts(spec: JobSpec) -> dict[str, Any]:
    settings = asdict(spec.settings)
    variables = settings.pop("environment_variables")
    places = {
        name: getattr(spec, name) for name in ("input_type", "output", "scoring_script")
    }
    if spec.flavor:   # jobs of before there were any have no such fact
        places["flavor"] = spec.flavor
    places["input"] = _noted(spec.input)
    return {
        "settings": {**places, **settings, "redrive": spec.redrive and asdict(spec.redrive)},
        "variables": {name: hash_of(value) for name, value in variables.items()},
        "packages": sorted(spec.packages),
        "environment": spec.hashes.get("environment", ""),
    }


def _noted(uri: str) -> str:
    """Return the URI without what may be a secret; another one gives another note."""
    shown = redacted(uri)
    return uri if shown == uri else f"{shown} (hash {hash_of(uri)[:12]})"


def _changed_settings(was: dict[str, Any], is_: dict[str, Any]) -> Iterator[str]:
    for name, old, new in _differences(was["settings"], is_["settings"]):
        yield f"{name} was {old!r} and is {new!r}"
    for name, old, new in _differences(was["variables"], is_["variables"]):
        how = "is new" if old is None else "is gone" if new is None else "has another value"
        yield f"the environment variable {name} {how}"
    if was["packages"] != is_["packages"]:
        yield from (f"the package {name} is gone" for name in was["packages"]
                    if name not in is_["packages"])
        yield from (f"the package {name} is new" for name in is_["packages"]
                    if name not in was["packages"])
    elif was["environment"] != is_["environment"]:
        yield (f"the environment had the hash {was['environment'][:12]} and has "
               f"{is_['environment'][:12]}")


def _differences(was: dict[str, Any], is_: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted({*was, *is_}):
        if was.get(name) != is_.get(name):
            yield name, was.get(name), is_.get(name)


def _tree_facts(spec: JobSpec, path: str, known_hash: str | None) -> dict[str, Any]:
    """Return the hash of a file or folder, and its files with their sizes and times."""
    files = _files(spec, path)
    return {
        "sha256": known_hash or hash_in_place(spec, path),
        "files": units_to_json(files if len(files) <= FILES_MAX else []),
    }


def _changed_tree(spec: JobSpec, was: dict[str, Any], path: str) -> Iterator[str]:
    if path and not os.path.exists(path):
        yield "it is gone"
    elif hash_in_place(spec, path) != was["sha256"]:
        files = units_from_json(was["files"])
        named = changed_units(files, _files(spec, path))
        first = next(named, None) if files else None
        yield first or "the content of a file"
        yield from named if first else ()


def hash_in_place(spec: JobSpec, path: str) -> str:
    """Return the hash of the job's code or model where it lies; without what the job writes."""
    return hash_path(Path(path), without=_written(spec)) if path else ""


def _files(spec: JobSpec, path: str) -> list[Unit]:
    names = file_names(Path(path), without=_written(spec)) if os.path.isdir(path) else [path]
    found = ((name, os.stat(os.path.join(path, name))) for name in names if name)
    return [Unit(name, status.st_size, status.st_mtime_ns) for name, status in found]


def _written(spec: JobSpec) -> tuple[str, ...]:
    """Return what the job itself writes, which may lie in the folder of its code."""
    return spec.output, spec.work, spec.logs


def _rest(first: Unit | None, units: Iterator[Unit]) -> Iterator[Unit]:
    return itertools.chain(() if first is None else (first,), units)


def _whole_files(units: Iterable[Unit]) -> Iterator[Unit]:
    """Yield the first unit of each file."""
    last = None
    for unit in units:
        if unit.path != last:
            last = unit.path
            yield unit


def _key(unit: Unit) -> bytes:
    return os.fsencode(unit.path)


def _state(unit: Unit) -> str:
    when = unit.version
    if isinstance(when, int):
        when = datetime.fromtimestamp(when / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
    return f"{unit.size_bytes} bytes of {when}"
