"""What tests need besides Python: a laptop without it skips, CI without it fails."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(name: str) -> None:
    """Skip the test where the program is missing; fail it under `CI=true`."""
    if shutil.which(name) is None:
        said = f"{name} is not installed; the test needs it"
        if os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)
