from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_files_with_ray_are_run_by_one_process_and_others_beside_it(tmp_path: Path) -> None:
    files = {"a": "slow", "b": "ray", "c": "slow", "d": "ray"}
    for name, mark in files.items():
        (tmp_path / f"test_{name}.py").write_text(
            f"import os, pathlib, pytest\n\n@pytest.mark.{mark}\ndef test_it():\n"
            f"    name = pathlib.Path({str(tmp_path)!r}, {name!r})\n"
            "    name.write_text(os.environ['PYTEST_XDIST_WORKER'])\n"
        )
    subprocess.run(
        [sys.executable, "-m", "pytest", "--numprocesses=2", "--no-loadscope-reorder",
         "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"),
         f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=ROOT, check=True, timeout=60,
    )
    process = {name: (tmp_path / name).read_text() for name in files}
    assert process["b"] == process["d"] != process["a"]
