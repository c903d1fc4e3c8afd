"""In a process of its own: what is tested changes the logging of a whole process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import logging, logging.config, sys
from logging.handlers import MemoryHandler
from inferay.serve.log_guard import protect_serve_handlers

logger = logging.getLogger("ray.serve")   # as Serve sets it up
logger.addHandler(MemoryHandler(1, target=logging.FileHandler(sys.argv[1])))
if sys.argv[2] == "protected":
    protect_serve_handlers()
    protect_serve_handlers()   # whenever Serve looks whether the replica is alive
logging.config.dictConfig({"version": 1})   # the user's code
protect_serve_handlers()
logger.warning("a line of Serve's")
print(getattr(logger.handlers[0].target, "baseFilename", None))
"""


@pytest.mark.parametrize("how", ["protected", "not"])
def test_a_dict_config_of_user_code_leaves_serves_log_its_file(tmp_path: Path, how: str) -> None:
    log = tmp_path / "serve.log"
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(log), how], capture_output=True, text=True, timeout=60,
        check=True,
    )
    if how == "protected":
        assert done.stdout == f"{log}\n"
        assert log.read_text() == "a line of Serve's\n"
    else:   # what the guard is for
        assert done.stdout == "None\n"
