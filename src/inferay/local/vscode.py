"""VS Code and a deployment that listens for a debugger: `.vscode/launch.json`, and its window."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from inferay.engine.resources import OnlineDeployment
from inferay.errors import InvalidInput

#: Of the file that VS Code makes itself.
_VERSION = "0.2.0"


def check_debugpy() -> None:
    """Check that debugpy is there.

    Raises:
        InvalidInput: It is not.
    """
    if importlib.util.find_spec("debugpy") is None:
        raise InvalidInput(
            "--vscode-debug: needs debugpy, which is not installed; pip install 'inferay[debug]'"
        )


def offer(folder: Path, deployment: OnlineDeployment, port: int) -> list[str]:
    """Let VS Code attach to a deployment, and open it if it is there; return lines for a person.

    A `launch.json` that is no plain JSON (VS Code allows comments) is left alone.
    """
    path = folder / ".vscode" / "launch.json"
    attach = attach_configuration(deployment, port)
    said = [f"deployment '{deployment.name}' listens for a debugger on 127.0.0.1:{port}"]
    if _write(path, attach):
        said.append(f"{path} has the configuration '{attach['name']}'")
    else:
        said += [f"{path} is left as it is, for it is no plain JSON; add this configuration:",
                 json.dumps(attach, indent=4)]
    code = shutil.which("code")
    if code is not None:
        subprocess.run([code, str(folder)], check=False, stdin=subprocess.DEVNULL)
    return said


def attach_configuration(deployment: OnlineDeployment, port: int) -> dict[str, Any]:
    """Return what `launch.json` calls a configuration: attach to the deployment's process."""
    code = deployment.code_configuration
    folders = [] if code is None else [{"localRoot": code.code, "remoteRoot": code.code}]
    return {
        "name": f"inferay: {deployment.endpoint_name}/{deployment.name}",
        "type": "debugpy", "request": "attach",
        "connect": {"host": "127.0.0.1", "port": port},
        "pathMappings": folders,
        "justMyCode": True,
    }


def _write(path: Path, attach: dict[str, Any]) -> bool:
    """Add a configuration, or replace the one of its name; return whether the file could be."""
    try:
        known = json.loads(path.read_text())
        others = [one for one in known["configurations"] if one.get("name") != attach["name"]]
    except FileNotFoundError:
        known, others = {"version": _VERSION}, []
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(known | {"configurations": [*others, attach]}, indent=4, ensure_ascii=False)
    path.write_text(text + "\n")
    return True
