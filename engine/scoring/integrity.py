"""Whether a registered model is still what was registered, before it is loaded.

A model's hash is read once on each machine: a marker in the machine's cache keeps what the file
system said of every file when its content was last found right. The time of a file's last change
of state is in it, which no program can set, so that a file whose size and time of modification
were put back is read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from datetime import datetime
from pathlib import Path

from inferay.engine.batch.spec import file_names, hash_path
from inferay.errors import InferayError


def check_content(model: str, registered: str) -> None:
    """Check that a model's file or folder has the content that was registered; blocks.

    Args:
        model: Its path.
        registered: Its hash, as `hash_path` gives it; "" for a model that nobody registered.

    Raises:
        InferayError: `ModelChanged`: it has not, or is gone.
    """
    if not registered:
        return
    path = Path(model)
    if not path.exists():
        raise _changed(f"the model {model} is gone")
    seen = _seen(path, registered)
    marker = _marker(path)
    with contextlib.suppress(OSError):   # none yet
        if marker.read_text() == seen:
            return
    if hash_path(path) != registered:
        raise _changed(f"the model {model} is not what was registered{_last_changed(path)}")
    with contextlib.suppress(OSError):   # a cache that cannot be written: it is read every time
        marker.parent.mkdir(parents=True, exist_ok=True)
        aside = marker.with_name(f".{marker.name}-{os.getpid()}")
        aside.write_text(seen)
        os.replace(aside, marker)


def _changed(what: str) -> InferayError:
    return InferayError(
        f"{what}; it was not loaded. Register the model again under a new version, or put its "
        "content back, and deploy that", code="ModelChanged",
    )


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [path / name for name in file_names(path)]


def _seen(path: Path, registered: str) -> str:
    """Return a digest of what the file system says of every file, and of the hash wanted."""
    digest = hashlib.sha256(registered.encode())
    for file in _files(path):
        stat = file.stat()
        state = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)
        digest.update(os.fsencode(file) + repr(state).encode() + b"\0")
    return digest.hexdigest()


def _last_changed(path: Path) -> str:
    """Return which file was changed last, for a person who looks for the change."""
    files = [(file.stat().st_ctime, file) for file in _files(path)]
    if not files:
        return ": it has no files"
    when, file = max(files)
    name = file.name if path.is_file() else str(file.relative_to(path))
    return f" (changed last: {name}, at {datetime.fromtimestamp(when):%Y-%m-%d %H:%M:%S})"


def _marker(path: Path) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()
    return Path(cache) / "inferay" / "verified" / name
