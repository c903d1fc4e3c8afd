"""Whether a published job is still what it was: every hash that it recorded, derived anew.

Reads output, manifest, code, model and input; runs nobody's code and changes nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inferay.engine.batch.changes import NAMED_MAX, changed_units, hash_in_place
from inferay.engine.batch.manifest import SEAL, ManifestReader, Seal, read_seal
from inferay.engine.batch.output import COPY_BYTES, SUCCESS
from inferay.engine.batch.spec import JobSpec, hash_of
from inferay.engine.batch.store import Store
from inferay.engine.batch.units import Unit
from inferay.errors import InferayError

OK, CHANGED, MISSING = "ok", "changed", "missing"


class Stopped(Exception):
    """Raised by `verify` when it was told to stop."""


@dataclass(frozen=True)
class Check:
    """One thing that was compared with its record.

    Attributes:
        name: `output/predictions.csv`, `manifest`, `code`, `input`, …
        status: `ok`, `changed` or `missing`.
        message: What is there instead; empty if it is ok.
    """

    name: str
    status: str
    message: str = ""


def verify(
    spec: JobSpec, store: Store, output: Store, *, registered: Mapping[str, str | None],
    listed: Callable[[], Iterable[Unit]], is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Check]:
    """Yield a check of each thing that the job's `_SUCCESS.json` records; blocks between them.

    Args:
        spec: The job.
        store: Its work.
        output: Where it is published.
        registered: Hashes of the assets as they are registered now, by `code`, `model` and
            `environment`; None for one that is gone.
        listed: Lists the input as it is now.
        is_stopped: Asked between blocks of output files.

    Raises:
        Stopped: `is_stopped` said so.
    """
    try:
        success = json.loads(output.read(SUCCESS))
        recorded = success["hashes"]
        files = [*success["files"], *filter(None, [success["errors"]])]
    except FileNotFoundError:
        yield Check(SUCCESS, MISSING, "it is gone: nothing says what the job has written")
        return
    except (ValueError, KeyError, TypeError) as error:
        yield Check(SUCCESS, CHANGED, f"it cannot be read any more: {error!r}")
        return
    yield _same(SUCCESS, spec.name, success.get("run", {}).get("job"), "written by job")
    for file in files:
        yield _file(output, file, is_stopped)
    yield _same("settings", recorded.get("settings"), hash_of(asdict(spec.settings)))
    for what, path in (("code", spec.code), ("model", spec.model)):
        if recorded.get(what):
            yield _tree(spec, what, path, recorded[what])
    for what, found in registered.items():
        if recorded.get(what):
            yield _registered(what, recorded[what], found)
    yield from _manifest(store, recorded.get("manifest"), listed)


def _file(output: Store, file: Mapping[str, Any], is_stopped: Callable[[], bool]) -> Check:
    name = f"output/{file['name']}"
    digest = hashlib.sha256()
    start = 0
    try:
        while chunk := output.read(file["name"], start, start + COPY_BYTES):
            digest.update(chunk)
            start += len(chunk)
            if is_stopped():
                raise Stopped
    except FileNotFoundError:
        return Check(name, MISSING, "it is gone")
    if start != file["size_bytes"]:
        return Check(name, CHANGED, f"it had {file['size_bytes']} bytes and has {start}")
    return _same(name, file["sha256"], digest.hexdigest())


def _tree(spec: JobSpec, what: str, path: str, recorded: str) -> Check:
    if not Path(path).exists():
        return Check(what, MISSING, f"{path} is gone")
    return _same(what, recorded, hash_in_place(spec, path))


def _registered(what: str, recorded: str, found: str | None) -> Check:
    name = f"{what} as registered"
    if found is None:
        return Check(name, MISSING, "the version is not registered any more")
    return _same(name, recorded, found)


def _manifest(
    store: Store, recorded: str | None, listed: Callable[[], Iterable[Unit]]
) -> Iterator[Check]:
    if not store.exists(SEAL):
        yield Check("manifest", MISSING, "the job's work folder has none any more")
        return
    try:
        seal = read_seal(store)
        manifest = ManifestReader(store, seal)
        for part in seal.parts:
            manifest.mini_batch(part.first)   # checks the part
        manifest.types  # noqa: B018 (checks them too)
    except (InferayError, OSError, ValueError) as error:
        yield Check("manifest", CHANGED, str(error))
        return
    yield _same("manifest", recorded, _digest(seal))
    try:
        differences = changed_units(manifest.units(), listed())
        gone = (one for one in differences if not one.endswith(" is new"))
        named = list(itertools.islice(gone, NAMED_MAX))
        more = sum(1 for _ in gone)
    except InferayError as error:
        yield Check("input", MISSING, error.message)
        return
    message = "; ".join(named) + (f"; and {more} more" if more else "")
    yield Check("input", CHANGED if named else OK, message)


def _digest(seal: Seal) -> str:
    content = "".join(part.sha256 for part in seal.parts) + seal.types_sha256
    return hashlib.sha256(content.encode()).hexdigest()


def _same(name: str, recorded: Any, found: Any, what: str = "sha256") -> Check:
    if recorded == found:
        return Check(name, OK)
    return Check(name, CHANGED, f"{what} was {recorded} and is {found}")
