from __future__ import annotations

import subprocess
import sys

HEAVY = ("ray", "pandas", "fastapi", "numpy", "pyarrow", "starlette", "sqlalchemy", "httpx")


def test_importing_the_resources_imports_nothing_heavy() -> None:
    code = f"import sys, inferay.engine.resources; print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"


def test_every_exported_name_is_there_once() -> None:
    import inferay.engine.resources as package

    assert len(set(package.__all__)) == len(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)
