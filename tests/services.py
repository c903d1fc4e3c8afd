"""What tests need besides Python: a laptop without it skips, CI without it fails."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(name: str) -> None:
    """Skip the test where the program is missing; fail it under `CI=true`."""
    skip_without(name if shutil.which(name) is None else None)


def skip_without(missing: str | None) -> None:
    """Skip the test, or fail it under `CI=true`, if a program is missing."""
    if missing is None:
        return
    said = f"{missing} is not installed; the test needs it"
    if os.environ.get("CI") == "true":
        pytest.fail(said)
    pytest.skip(said)
