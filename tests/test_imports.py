from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: What starts and finds a workspace's processes.
LAUNCHING = ("processes", "tls", "ray_head", "edge_process", "launcher", "keeper")

#: What each part may import of inferay. The launcher and what it stands on are no part.
MAY_IMPORT = {
    "engine": {"engine", "errors", "config"},
    "jobs": {"jobs", "engine", "errors", "config"},
    "serve": {"serve", "engine", "errors", "config"},
    "src/inferay/client": {"client", "engine", "jobs", "errors", "config"},
    "src/inferay/local": {
        "local", "client", "engine", "serve", "errors", "config", "processes", "edge_process",
    },
    "src/inferay/cli": {
        "cli", "client", "local", "engine", "jobs", "serve", "errors", "config", *LAUNCHING,
    },
    "src/inferay/control": {
        "control", "engine", "jobs", "serve", "errors", "config", *LAUNCHING,
    },
}

#: The modules that may import Ray: whoever else does makes every import take a second.
RAY_MODULES = {
    "engine/batch/ray_pool.py", "engine/batch/runner.py", "serve/app.py", "serve/replica.py",
}

#: Parts whose modules must name Ray in `RAY_MODULES` first.
WITHOUT_RAY = (
    "engine", "serve", "src/inferay/client", "src/inferay/cli", "src/inferay/local",
)

HEAVY = (
    "ray", "pandas", "numpy", "pyarrow", "pydantic", "fastapi", "starlette", "sqlalchemy", "httpx",
)


def modules_of(path: Path) -> set[str]:
    """Return the full name of everything that the file imports, at its top or in a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "inferay":
            names |= {f"inferay.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def imported_parts(path: Path) -> set[str]:
    """Return the second name of every inferay import in the file: {"engine", "errors"}."""
    names = {name.split(".")[1] for name in modules_of(path) if name.startswith("inferay.")}
    return names - {"__version__"}


def files_of(part: str) -> list[Path]:
    return sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_parts_import_only_what_lies_below_them(part: str) -> None:
    assert files_of(part)
    for path in files_of(part):
        forbidden = imported_parts(path) - MAY_IMPORT[part]
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"


@pytest.mark.parametrize("name", ["errors", "config", *LAUNCHING])
def test_the_root_modules_import_no_part(name: str) -> None:
    allowed = {"errors", "config", *LAUNCHING}
    if name in ("edge_process", "keeper"):   # they start it
        allowed.add("serve")
    assert imported_parts(ROOT / "src/inferay" / f"{name}.py") <= allowed


def test_the_plugin_of_mlflow_speaks_through_the_client_alone() -> None:
    plugin = ROOT / "src/inferay/mlflow_plugin.py"
    assert imported_parts(plugin) <= {"Client", "engine", "errors"}


@pytest.mark.parametrize("part", WITHOUT_RAY)
def test_only_named_modules_import_ray(part: str) -> None:
    for path in files_of(part):
        name = str(path.relative_to(ROOT))
        uses_ray = any(module.split(".")[0] == "ray" for module in modules_of(path))
        assert uses_ray == (name in RAY_MODULES), f"{name} imports ray"


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_no_file_imports_by_the_name_of_the_folder(part: str) -> None:
    """`engine` is `inferay.engine`: a second copy of a module has classes of its own."""
    for path in files_of(part):
        tops = {module.split(".")[0] for module in modules_of(path)}
        assert not tops & {"engine", "jobs", "serve"}, path


@pytest.mark.parametrize("part", ["engine", "jobs", "serve"])
def test_the_top_folders_are_the_packages(part: str) -> None:
    assert (ROOT / "src/inferay" / part).resolve() == ROOT / part


def loaded_by(code: str) -> set[str]:
    listing = f"{code}\nimport sys; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", listing], capture_output=True, text=True, check=True,
        timeout=60,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", [
    "inferay", "inferay.errors", "inferay.config", "inferay.engine", "inferay.engine.batch",
    "inferay.engine.batch.child", "inferay.engine.batch.process", "inferay.engine.batch.driver",
    "inferay.engine.batch.pool", "inferay.engine.batch.spec", "inferay.engine.scoring.script",
    "inferay.serve.mirror.sender", "inferay.serve.mirror.review",
])
def test_light_modules_import_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}") == set()


def test_a_name_of_the_package_loads_when_it_is_used() -> None:
    assert loaded_by("from inferay.engine.batch import JobSpec, Result") == set()
    assert "ray" in loaded_by("from inferay.engine.batch import run")


def test_a_name_that_the_package_lacks_is_no_attribute() -> None:
    import inferay.engine.batch as batch

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        batch.nothing  # noqa: B018


def test_mlflow_is_imported_only_where_a_model_of_it_is_loaded() -> None:
    modules = (
        "inferay.cli.main", "inferay.client", "inferay.control.app", "inferay.local.deployments",
        "inferay.engine.batch.child", "inferay.engine.scoring.mlflow_batch",
        "inferay.serve.server.hosting", "inferay.serve.edge.edge",
    )
    code = f"import sys, {', '.join(modules)}; print([m for m in sys.modules if m == 'mlflow'])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
