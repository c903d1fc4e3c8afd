"""A job's folder as others read it: spec, progress, result, logs. The driver writes the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inferay.engine.batch.driver import CANCEL
from inferay.engine.batch.journal import epochs
from inferay.engine.batch.progress import NAME as PROGRESS
from inferay.engine.batch.spec import JobSpec
from inferay.engine.batch.store import LocalStore
from inferay.errors import InvalidInput

SPEC = "spec.json"


class JobFolder:
    """The folder of one job, with `work/` and `logs/` in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = LocalStore(root / "work")
        self.logs = root / "logs"

    @property
    def spec_path(self) -> Path:
        """Where the frozen spec lies."""
        return self.work.path(SPEC)

    def write_spec(self, spec: JobSpec) -> None:
        """Store the spec, once; idempotent for an equal one.

        Raises:
            FileExistsError: Another spec is there.
        """
        try:
            self.work.create(SPEC, spec.to_bytes())
        except FileExistsError:
            if self.work.read(SPEC) != spec.to_bytes():
                raise

    def read_spec(self) -> JobSpec:
        """Return the frozen spec.

        Raises:
            InvalidInput: There is none, or it is none.
        """
        return read_frozen(self.spec_path)

    def result(self, epoch: int) -> dict[str, Any] | None:
        """Return what the driver of this epoch recorded at its end, if it did."""
        return self._json(f"result/{epoch}.json")

    def progress(self, epoch: int) -> dict[str, Any] | None:
        """Return how far the driver of this epoch is, if it wrote anything yet."""
        found = self._json(PROGRESS)
        return found if found and found["epoch"] == epoch else None

    def last_progress(self) -> dict[str, Any] | None:
        """Return how far the job was when a driver last wrote it."""
        return self._json(PROGRESS)

    def last_epoch(self) -> int:
        """Return the newest epoch that a driver has claimed, or 0."""
        return (epochs(self.work) or [0])[-1]

    def ask_to_cancel(self) -> None:
        """Ask the driver to end the job; idempotent."""
        if not self.work.exists(CANCEL):
            self.work.replace(CANCEL, b"")

    def withdraw_cancel(self) -> None:
        """Take back the wish to end the job; idempotent; only while no driver lives."""
        self.work.remove(CANCEL)

    def _json(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self.work.read(name))
        except FileNotFoundError:
            return None
        return found


def read_frozen(path: Path) -> JobSpec:
    """Return the frozen spec in a file.

    Raises:
        InvalidInput: It cannot be read, or is no spec.
    """
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, got {type(found).__name__}")
        return JobSpec.from_dict(found)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read the job spec {path}: {error}", target=str(path)) from error
