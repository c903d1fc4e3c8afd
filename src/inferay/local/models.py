"""Copies of models: what `AZUREML_MODEL_DIR` names holds the model and nothing else.

A copy, and no link: MLflow refuses a linked model folder, and a script that looks for its model by
the folder's listing must not find what else lies beside it. Equal files are copied once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

#: What tells that a folder was copied whole.
_COMPLETE = ".complete"


def copy_model(folder: Path, model: Path) -> Path:
    """Return the copy of a model's file or folder, below the folder; blocks while it copies."""
    place = folder / _digest(model)
    copy = place / model.name
    if not place.with_suffix(_COMPLETE).exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700, parents=True)
        if model.is_dir():
            shutil.copytree(model, copy)
        else:
            shutil.copy2(model, copy)
        place.with_suffix(_COMPLETE).touch()
    return copy


def remove_unused(folder: Path, used: Iterable[str]) -> None:
    """Remove the copies that are none of these."""
    kept = {Path(one).parent.name for one in used if one}
    for place in folder.glob("*"):
        if place.stem in kept:
            continue
        if place.is_dir():
            place.with_suffix(_COMPLETE).unlink(missing_ok=True)   # first: it may be half gone
            shutil.rmtree(place, ignore_errors=True)


def _digest(model: Path) -> str:
    """Tell a model from others and from itself before a change, without reading its bytes."""
    found = hashlib.sha256(str(model).encode())
    for path in _files(model):
        facts = path.stat()
        found.update(f"\0{path}\0{facts.st_size}\0{facts.st_mtime_ns}".encode())
    return found.hexdigest()[:32]


def _files(model: Path) -> Iterator[Path]:
    if not model.is_dir():
        yield model
        return
    for root, folders, files in os.walk(model, followlinks=True):
        folders.sort()
        yield from (Path(root, name) for name in sorted(files))
